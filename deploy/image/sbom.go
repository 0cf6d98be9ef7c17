package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// license is that of LICENSE, in the words of SPDX.
const license = "Apache-2.0"

const unknown = "NOASSERTION"

// document is what is written of SPDX 2.3 in JSON.
type document struct {
	Version       string         `json:"spdxVersion"`
	DataLicense   string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []*pkg         `json:"packages"`
	Files         []*file        `json:"files"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type pkg struct {
	ID               string        `json:"SPDXID"`
	Name             string        `json:"name"`
	Version          string        `json:"versionInfo"`
	Download         string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	Verification     *verification `json:"packageVerificationCode,omitempty"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	Copyright        string        `json:"copyrightText"`
	Purpose          string        `json:"primaryPackagePurpose"`
	References       []reference   `json:"externalRefs,omitempty"`
}

type verification struct {
	Value string `json:"packageVerificationCodeValue"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type file struct {
	ID               string     `json:"SPDXID"`
	Name             string     `json:"fileName"`
	Types            []string   `json:"fileTypes"`
	Checksums        []checksum `json:"checksums"`
	LicenseConcluded string     `json:"licenseConcluded"`
	Copyright        string     `json:"copyrightText"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const (
	documentID = "SPDXRef-DOCUMENT"
	imageID    = "SPDXRef-Image"
)

// writeSBOM writes what an image consists of: its files, and what the Go binaries among them say that they are built from.
func (r release) writeSBOM(name string, image v1.Image, contents []content) error {
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	s := &sbom{modules: map[string]*pkg{}, document: document{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: documentID,
		Name:      fmt.Sprintf("npd-plugins-%s-%s-%s", r.version, config.OS, config.Architecture),
		Namespace: "urn:uuid:" + uuid("SPDX of "+digest.String()),
		Creation:  creation{r.date.Format(time.RFC3339), []string{"Tool: npd-plugins-deploy-image-" + r.version}},
	}}
	s.Packages = []*pkg{{
		ID: imageID, Name: "npd-plugins", Version: r.version, Download: unknown, FilesAnalyzed: true,
		Checksums:        []checksum{{"SHA256", digest.Hex}}, // of the manifest
		LicenseConcluded: unknown, LicenseDeclared: license, Copyright: unknown, Purpose: "CONTAINER",
	}}
	s.relate(documentID, "DESCRIBES", imageID)
	for _, c := range contents {
		if err := s.add(c); err != nil {
			return err
		}
	}
	s.Packages[0].Verification = &verification{s.verificationCode()}
	for _, id := range slices.Sorted(maps.Keys(s.modules)) {
		s.Packages = append(s.Packages, s.modules[id])
	}
	b, err := json.MarshalIndent(s.document, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

// sbom is a document while it is made.
type sbom struct {
	document
	modules map[string]*pkg // by SPDX identifier
}

func (s *sbom) relate(element, how, related string) {
	s.Relationships = append(s.Relationships, relationship{element, how, related})
}

// add adds a file, and for a binary the modules linked into it.
func (s *sbom) add(c content) error {
	data, err := os.ReadFile(c.file)
	if err != nil {
		return err
	}
	sum1, sum256 := sha1.Sum(data), sha256.Sum256(data)
	f := &file{
		ID: identifier("File", c.name), Name: "./" + c.name, Types: []string{"TEXT"},
		Checksums:        []checksum{{"SHA1", hex.EncodeToString(sum1[:])}, {"SHA256", hex.EncodeToString(sum256[:])}},
		LicenseConcluded: unknown, Copyright: unknown,
	}
	s.Files = append(s.Files, f)
	s.relate(imageID, "CONTAINS", f.ID)
	if !strings.HasPrefix(c.name, "bin/") {
		return nil
	}
	f.Types = []string{"BINARY"}
	info, err := buildinfo.ReadFile(c.file)
	if err != nil {
		return err
	}
	s.link(f.ID, "stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		s.link(f.ID, module.Path, module.Version)
	}
	return nil
}

// link adds a Go module that a binary is linked with. The standard library is the module stdlib, as in the Go vulnerability database.
func (s *sbom) link(binary, path, version string) {
	id := identifier("Module", path+"-"+version)
	s.modules[id] = &pkg{
		ID: id, Name: path, Version: version, Download: unknown,
		LicenseConcluded: unknown, LicenseDeclared: unknown, Copyright: unknown, Purpose: "LIBRARY",
		References: []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}},
	}
	s.relate(binary, "STATIC_LINK", id)
}

// verificationCode is SPDX' sum of the sums of a package's files.
func (s *sbom) verificationCode() string {
	var sums []string
	for _, f := range s.Files {
		sums = append(sums, f.Checksums[0].Value)
	}
	slices.Sort(sums)
	sum := sha1.Sum([]byte(strings.Join(sums, "")))
	return hex.EncodeToString(sum[:])
}

var notInIdentifier = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// identifier is an SPDX identifier.
func identifier(kind, name string) string {
	return "SPDXRef-" + kind + "-" + notInIdentifier.ReplaceAllString(name, "-")
}

// uuid is a UUID of version 8 (RFC 9562) made from text.
func uuid(text string) string {
	b := sha256.Sum256([]byte(text))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

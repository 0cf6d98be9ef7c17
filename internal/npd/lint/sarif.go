package lint

import (
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"slices"
)

// The objects of SARIF 2.1.0 that are written, with the names of the standard.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID                   string     `json:"id"`
		ShortDescription     sarifText  `json:"shortDescription"`
		Help                 sarifText  `json:"help"`
		DefaultConfiguration sarifLevel `json:"defaultConfiguration"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifLevel struct {
		Level string `json:"level"`
	}
	sarifResult struct {
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Suppressions []sarifSuppression `json:"suppressions"` // none: was not suppressed
	}
	sarifLocation struct {
		PhysicalLocation sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		ArtifactLocation sarifArtifact `json:"artifactLocation"`
		Region           sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Justification string `json:"justification"`
	}
)

// SARIFSchema is what OASIS calls the schema of SARIF 2.1.0.
const SARIFSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

// level is the severity in SARIF's words.
func (s Severity) level() string {
	if s == Fatal {
		return "error"
	}
	return s.String()
}

// WriteSARIF writes findings in the Static Analysis Results Interchange Format 2.1.0, those that are suppressed too. Version is that
// of the tool.
func WriteSARIF(to io.Writer, findings []Finding, version string) error {
	driver := sarifDriver{Name: "npdctl lint", Version: version}
	for _, t := range Traps {
		driver.Rules = append(driver.Rules, sarifRule{t.ID, sarifText{t.Happens}, sarifText{t.Mend}, sarifLevel{t.Severity.level()}})
	}
	results := []sarifResult{}
	for _, f := range findings {
		r := sarifResult{
			RuleID:       f.Trap.ID,
			RuleIndex:    slices.IndexFunc(Traps, func(t Trap) bool { return t.ID == f.Trap.ID }),
			Level:        f.Trap.Severity.level(),
			Message:      sarifText{f.Detail + ": " + f.Trap.Happens},
			Suppressions: []sarifSuppression{},
		}
		place := sarifPhysical{sarifArtifact{fileURI(f.Path)}, sarifRegion{f.Line, f.Column}}
		r.Locations = []sarifLocation{{place}}
		if f.Suppressed != "" {
			r.Suppressions = append(r.Suppressions, sarifSuppression{"external", f.Suppressed})
		}
		results = append(results, r)
	}
	out := json.NewEncoder(to)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(sarifLog{SARIFSchema, "2.1.0", []sarifRun{{sarifTool{driver}, "unicodeCodePoints", results}}})
}

// fileURI is a path as a URI; a relative one stays relative.
func fileURI(path string) string {
	u := url.URL{Path: filepath.ToSlash(path)}
	if filepath.IsAbs(path) {
		u.Scheme = "file"
	}
	return u.String()
}

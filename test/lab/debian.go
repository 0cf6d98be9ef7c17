package lab

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Debian takes packages of one Debian release from the mirror this machine uses, with apt in directories of its own,
// apart from the machine's packages and lists, and with the archive's signature checked.
type Debian struct {
	dir     string
	options []string
}

// OpenDebian reads the package lists of a release (its code name) for an architecture into dir, which holds the
// packages too. Its errors say what is missing.
func OpenDebian(dir, release, architecture string) (*Debian, error) {
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("%w: apt-get install debian-archive-keyring", err)
	}
	mirror, err := debianMirror()
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	sources, installed := filepath.Join(dir, "sources.list"), filepath.Join(dir, "status")
	for path, content := range map[string]string{
		sources:   fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror, release),
		installed: "", // else apt prefers the installed version, which the release may not have
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	d := &Debian{dir, []string{
		"-qq",
		"-oAPT::Architecture=" + architecture,
		"-oAPT::Architectures=" + architecture,
		"-oAPT::Sandbox::User=root", // its own user cannot write here
		"-oAcquire::Languages=none",
		"-oDir::Etc::sourcelist=" + sources,
		"-oDir::Etc::sourceparts=/dev/null",
		"-oDir::State::lists=" + filepath.Join(dir, "lists"),
		"-oDir::State::status=" + installed,
		"-oDir::Cache=" + filepath.Join(dir, "cache"),
	}}
	_, err = d.run("apt-get", "update")
	return d, err
}

// Download returns the path of a package's file.
func (d *Debian) Download(name string) (deb string, err error) {
	if _, err := d.run("apt-get", "download", name); err != nil {
		return "", err
	}
	packages, err := filepath.Glob(filepath.Join(d.dir, name+"_*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", name, len(packages))
	}
	return packages[0], nil
}

var firstDependency = regexp.MustCompile(`(?m)^Depends: ([^ ,]+)`)

// Dependency returns the first package that a package depends on: of a metapackage the newest version it stands for.
func (d *Debian) Dependency(metapackage string) (string, error) {
	record, err := d.run("apt-cache", "show", metapackage)
	if err != nil {
		return "", err
	}
	m := firstDependency.FindStringSubmatch(record)
	if m == nil {
		return "", fmt.Errorf("package %s depends on nothing", metapackage)
	}
	return m[1], nil
}

func (d *Debian) run(command string, args ...string) (string, error) {
	cmd := exec.Command(command, append(d.options, args...)...)
	cmd.Dir = d.dir
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", command, strings.Join(args, " "), err, problems.String())
	}
	return string(out), nil
}

// debianMirror returns the archive that this machine's own apt uses for Debian.
func debianMirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its mirror: %w", err)
	}
	for uri := range strings.FieldsSeq(string(out)) {
		if strings.HasSuffix(strings.TrimSuffix(uri, "/"), "/debian") {
			return uri, nil
		}
	}
	return "", errors.New("apt has no Debian mirror in its sources (an URI that ends in /debian)")
}

// Unpack writes files of a Debian package elsewhere: files maps a pattern of path.Match ("./boot/vmlinuz-*") to where
// the first file goes whose path in the package matches.
func Unpack(deb string, files map[string]string) error {
	unpack := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	stream, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	defer unpack.Wait()
	defer stream.Close() // ends dpkg-deb when the rest is not wanted
	archive := tar.NewReader(stream)
	for done := map[string]bool{}; len(done) < len(files); {
		header, err := archive.Next()
		if err != nil {
			return fmt.Errorf("look for %d files in %s, found %d: %w", len(files), filepath.Base(deb), len(done), err)
		}
		for pattern, to := range files {
			matches, err := path.Match(pattern, header.Name)
			if err != nil {
				return err
			}
			if !matches || done[pattern] || header.Typeflag != tar.TypeReg {
				continue
			}
			if err := writeFrom(archive, to, header.FileInfo().Mode()); err != nil {
				return err
			}
			done[pattern] = true
		}
	}
	return nil
}

func writeFrom(content io.Reader, to string, mode os.FileMode) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

package guest

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Kernel is the kernel of a Debian release, as built for virtual machines.
type Kernel struct {
	Version string // major.minor
	Release string // Debian's code name
}

// Kernels are those that the fault tests run on, besides that of the machine they run on.
var Kernels = []Kernel{
	{"5.10", "bullseye"},
	{"6.1", "bookworm"},
	{"6.12", "trixie"},
}

// Download returns the path of the kernel's image in dir. When it is not there yet, it is taken from the Debian
// mirror this machine uses, with apt in directories of its own and with the archive's signature checked.
func (k Kernel) Download(dir string) (string, error) {
	image := filepath.Join(dir, "vmlinuz-"+k.Version)
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	work, err := os.MkdirTemp(dir, "apt-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	apt, err := newApt(work, k.Release)
	if err != nil {
		return "", err
	}
	if _, err := apt.run("apt-get", "update"); err != nil {
		return "", err
	}
	name, err := apt.dependency("linux-image-cloud-amd64")
	if err != nil {
		return "", err
	}
	if _, err := apt.run("apt-get", "download", name); err != nil {
		return "", err
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", name, len(packages))
	}
	unpacked := filepath.Join(work, "vmlinuz")
	if err := extract(packages[0], "./boot/vmlinuz-", unpacked); err != nil {
		return "", err
	}
	return image, os.Rename(unpacked, image)
}

// apt runs apt's commands on one release, apart from the machine's own packages and lists.
type apt struct {
	dir     string
	options []string
}

func newApt(dir, release string) (*apt, error) {
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
	sources := filepath.Join(dir, "sources.list")
	line := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, release)
	if err := os.WriteFile(sources, []byte(line), 0o644); err != nil {
		return nil, err
	}
	return &apt{dir, []string{
		"-qq",
		"-oAPT::Sandbox::User=root", // its own user cannot write here
		"-oAcquire::Languages=none",
		"-oDir::Etc::sourcelist=" + sources,
		"-oDir::Etc::sourceparts=/dev/null",
		"-oDir::State::lists=" + filepath.Join(dir, "lists"),
		"-oDir::Cache=" + filepath.Join(dir, "cache"),
	}}, nil
}

func (a *apt) run(command string, args ...string) (string, error) {
	cmd := exec.Command(command, append(a.options, args...)...)
	cmd.Dir = a.dir
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", command, strings.Join(args, " "), err, problems.String())
	}
	return string(out), nil
}

var firstDependency = regexp.MustCompile(`(?m)^Depends: ([^ ,]+)`)

// dependency returns the first package that a package depends on: of a metapackage the newest version it stands for.
func (a *apt) dependency(metapackage string) (string, error) {
	record, err := a.run("apt-cache", "show", metapackage)
	if err != nil {
		return "", err
	}
	m := firstDependency.FindStringSubmatch(record)
	if m == nil {
		return "", fmt.Errorf("package %s depends on nothing", metapackage)
	}
	return m[1], nil
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

// extract writes the first file of a Debian package whose path has the prefix to the file to.
func extract(deb, prefix, to string) error {
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
	for {
		header, err := archive.Next()
		if err != nil {
			return fmt.Errorf("look for %s in %s: %w", prefix, filepath.Base(deb), err)
		}
		if !strings.HasPrefix(header.Name, prefix) {
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		return os.WriteFile(to, content, 0o644)
	}
}

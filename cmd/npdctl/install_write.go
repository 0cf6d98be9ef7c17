package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// install writes all files to the staging directory, tries them there, and puts them in place: checks first, as a configuration
// must never name one that is not there.
func (i *installation) install(prune bool, stdout, stderr io.Writer) error {
	if err := os.MkdirAll(i.dest, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(i.dest)
	if err != nil {
		return err
	}
	defer root.Close()
	unlock, err := lock(root, i.dest)
	if err != nil {
		return err
	}
	defer unlock()

	before, err := readList(root, i.dest)
	if err != nil {
		return err
	}
	if before == nil {
		before = &list{}
	}
	if err := i.unchanged(root, before.all()); err != nil {
		return err
	}
	defer root.RemoveAll(staging)
	now, err := i.stage(root)
	if err != nil {
		return err
	}
	if err := i.try(filepath.Join(i.dest, staging), now.files); err != nil {
		return err
	}
	i.warn(root, before, stderr)
	kept, removed, err := i.replaceAll(root, before, now, prune)
	if err != nil {
		return err
	}
	i.report(kept, removed, stdout)
	return nil
}

// lock keeps a second install out until this one ends.
func lock(root *os.Root, dir string) (unlock func(), err error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another install to %s is under way", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// unchanged refuses to overwrite what no install has written.
func (i *installation) unchanged(root *os.Root, sums map[string][]string) error {
	for _, name := range slices.Sorted(maps.Keys(i.files)) {
		sum, err := sumOf(root, name)
		switch {
		case err != nil:
			return err
		case sum == "":
		case sums[name] == nil:
			return fmt.Errorf("%s is there, and not from an install: move it away", filepath.Join(i.dest, name))
		case !slices.Contains(sums[name], sum):
			return fmt.Errorf("%s has been changed since it was installed: move it away, and use --set for what shall differ", filepath.Join(i.dest, name))
		}
	}
	return nil
}

// stage writes all files to a fresh staging directory.
func (i *installation) stage(root *os.Root) (*list, error) {
	if err := root.RemoveAll(staging); err != nil { // of an install that broke off
		return nil, err
	}
	now := &list{version: version, files: map[string][]string{}, kept: map[string][]string{}}
	for _, name := range slices.Sorted(maps.Keys(i.files)) {
		sum, err := write(root, path.Join(staging, name), i.files[name])
		if err != nil {
			return nil, err
		}
		now.files[name] = []string{sum}
	}
	return now, nil
}

// write writes a new file, and returns its SHA-256.
func write(root *os.Root, name string, file installed) (sum string, err error) {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return "", err
	}
	from, err := file.open()
	if err != nil {
		return "", err
	}
	defer from.Close()
	to, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(to, hash), from)
	if err == nil {
		err = to.Chmod(file.mode())
	}
	if err == nil {
		err = to.Sync()
	}
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, to.Close())
}

// replaceAll puts the staged files in place, and returns which are kept of earlier installs and which were removed.
func (i *installation) replaceAll(root *os.Root, before, now *list, prune bool) (kept, removed []string, err error) {
	under := &list{version: version, files: maps.Clone(now.files), kept: before.all()}
	if err := writeList(root, under); err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(now.files)) { // bin, config, journal-rules
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return nil, nil, err
		}
		if err := root.Rename(path.Join(staging, name), name); err != nil {
			return nil, nil, err
		}
	}
	for name, sums := range before.all() {
		if now.files[name] != nil {
			continue
		}
		sum, err := sumOf(root, name)
		switch {
		case err != nil:
			return nil, nil, err
		case sum == "": // somebody has removed it
		case prune && slices.Contains(sums, sum):
			if err := root.Remove(name); err != nil {
				return nil, nil, err
			}
			removed = append(removed, name)
		default: // not to be removed, or changed by somebody
			now.kept[name] = sums
			kept = append(kept, name)
		}
	}
	if err := syncDirs(root, now); err != nil {
		return nil, nil, err
	}
	now.complete = true
	slices.Sort(kept)
	slices.Sort(removed)
	return kept, removed, writeList(root, now)
}

func writeList(root *os.Root, l *list) error {
	temp := listFile + ".temp"
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := write(root, temp, installed{content: l.format()}); err != nil {
		return err
	}
	if err := root.Rename(temp, listFile); err != nil {
		return err
	}
	return syncDir(root, ".")
}

// syncDirs makes the new names last over a loss of power.
func syncDirs(root *os.Root, l *list) error {
	dirs := map[string]bool{}
	for name := range l.files {
		dirs[path.Dir(name)] = true
	}
	for dir := range dirs {
		if err := syncDir(root, dir); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

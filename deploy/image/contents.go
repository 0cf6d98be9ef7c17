package main

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// content is a file of the image.
type content struct {
	name string // below /
	file string // that it is
	mode int64
}

// contents builds the binaries and returns all files of the image, by name.
func (r release) contents(bin, architecture string) ([]content, error) {
	if err := r.build(bin, architecture); err != nil {
		return nil, err
	}
	all := []content{{"LICENSE", filepath.Join(r.root, "LICENSE"), 0o644}}
	binaries, err := os.ReadDir(bin)
	if err != nil {
		return nil, err
	}
	for _, binary := range binaries {
		all = append(all, content{"bin/" + binary.Name(), filepath.Join(bin, binary.Name()), 0o755})
	}
	for _, dir := range []string{"config", "journal-rules"} {
		files, err := jsonFiles(filepath.Join(r.root, dir), dir)
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
	}
	slices.SortFunc(all, func(a, b content) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

func jsonFiles(dir, name string) (files []content, err error) {
	err = filepath.WalkDir(dir, func(at string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "testdata":
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(at) != ".json":
			return nil
		}
		below, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		files = append(files, content{path.Join(name, filepath.ToSlash(below)), at, 0o644})
		return nil
	})
	return files, err
}

// writeTar writes files and their directories, all of root and of one date.
func writeTar(name string, contents []content, date time.Time) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	made := map[string]bool{".": true}
	for _, c := range contents {
		if err := writeDirs(w, path.Dir(c.name), made, date); err != nil {
			return err
		}
		if err := writeFile(w, c, date); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

func writeDirs(w *tar.Writer, dir string, made map[string]bool, date time.Time) error {
	if made[dir] {
		return nil
	}
	if err := writeDirs(w, path.Dir(dir), made, date); err != nil {
		return err
	}
	made[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: date, Format: tar.FormatUSTAR})
}

func writeFile(w *tar.Writer, c content, date time.Time) error {
	f, err := os.Open(c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: c.name, Size: info.Size(), Mode: c.mode, ModTime: date, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

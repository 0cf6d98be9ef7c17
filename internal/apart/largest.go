package apart

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
	"npd-plugins/internal/procfs"
)

const (
	maxEntries = 20000 // that it looks at in all, 0.1 s of CPU
	maxInOne   = 5000  // in one directory
	nameDepth  = 3     // a directory is named by so many parts of its path below the mount point: /var/log/app
	maxTold    = 10    // directories that it tells, of bytes and of inodes
)

// Directory is what a directory of the node holds, with all below it: at least
// that much, for not all of it was looked at.
type Directory struct {
	Path   string
	Bytes  uint64 // of disk blocks
	Inodes uint64
}

// Tree says where Largest looks.
type Tree struct {
	Dir    string   // a directory of the node, on the file system that it stays on
	Starts []string // directories where it begins; those on other file systems are left out
	Skip   []string // directories that it does not open
}

// Largest looks at 20,000 files at most, those high up in the tree first, and
// returns the directories that hold most bytes of disk, or inodes.
func Largest(ctx context.Context, h *host.Root, tree Tree) (directories []Directory, err error) {
	what, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	said, err := question(ctx, h, largestName, string(what))
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(said, &directories) != nil {
		return nil, ErrHangs
	}
	return directories, nil
}

// serveLargest writes what the tree holds. The argument is the tree as JSON.
func serveLargest(w io.Writer, hostRoot string, args []string) {
	var tree Tree
	h, err := host.Open(hostRoot)
	if err != nil || len(args) != 1 || json.Unmarshal([]byte(args[0]), &tree) != nil {
		return
	}
	mounts, err := mountsBelow(hostRoot)
	if err != nil {
		return
	}
	answer, _ := json.Marshal(tree.walk(h, mounts))
	_, _ = w.Write(answer)
}

// mounts are the mount points of the node that this process sees, and the
// devices of what is mounted there.
type mounts map[string][2]uint32

func mountsBelow(hostRoot string) (mounts, error) {
	root, err := filepath.EvalSymlinks(hostRoot)
	if err != nil {
		return nil, err
	}
	found := mounts{}
	err = procfs.EachOwnMount(func(m procfs.Mount) bool {
		if below, err := filepath.Rel(root, m.Point); err == nil && below != ".." && !strings.HasPrefix(below, "../") {
			found[path.Join("/", below)] = [2]uint32{m.Major, m.Minor}
		}
		return true
	})
	return found, err
}

// of is the mount that a directory is in.
func (m mounts) of(dir string) (point string, device [2]uint32) {
	for {
		if device, ok := m[dir]; ok || dir == "/" {
			return dir, device
		}
		dir = path.Dir(dir)
	}
}

// walk goes through the directories level by level. It never asks for what is
// mounted somewhere else, as that may hang, and with it every later question.
func (t Tree) walk(h *host.Root, mounted mounts) []Directory {
	held := map[string]*Directory{}
	seen := map[uint64]bool{} // inodes of directories
	point, wanted := mounted.of(t.Dir)
	queue := slices.DeleteFunc(slices.Clone(t.Starts), func(dir string) bool {
		_, device := mounted.of(dir)
		return device != wanted
	})
	var device uint64
	for looked := 0; len(queue) > 0 && looked < maxEntries; {
		dir := queue[0]
		queue = queue[1:]
		if slices.Contains(t.Skip, dir) {
			continue
		}
		d, err := h.OpenNow(dir)
		if err != nil {
			continue
		}
		var own unix.Stat_t
		if unix.Fstat(int(d.Fd()), &own) != nil || device != 0 && uint64(own.Dev) != device || seen[own.Ino] {
			d.Close()
			continue
		}
		device = uint64(own.Dev)
		seen[own.Ino] = true
		names, _ := d.Readdirnames(min(maxInOne, maxEntries-looked))
		looked += len(names)
		for _, name := range names {
			below := path.Join(dir, name)
			if _, ok := mounted[below]; ok {
				continue
			}
			var st unix.Stat_t
			if unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT) != nil {
				continue
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				queue = append(queue, below)
			}
			label := shortPath(point, dir)
			if held[label] == nil {
				held[label] = &Directory{Path: label}
			}
			held[label].Bytes += uint64(st.Blocks) * 512
			held[label].Inodes++
		}
		d.Close()
	}
	var all, most []Directory
	for _, d := range held {
		all = append(all, *d)
	}
	for _, of := range []func(Directory) uint64{func(d Directory) uint64 { return d.Bytes }, func(d Directory) uint64 { return d.Inodes }} {
		slices.SortFunc(all, func(a, b Directory) int { return cmp.Or(cmp.Compare(of(b), of(a)), cmp.Compare(a.Path, b.Path)) })
		for _, d := range all[:min(len(all), maxTold)] {
			if !slices.Contains(most, d) {
				most = append(most, d)
			}
		}
	}
	return most
}

// shortPath is the path as far as a directory is named.
func shortPath(point, dir string) string {
	below, err := filepath.Rel(point, dir)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") { // the same file system is mounted there, too
		point, below = "/", strings.TrimPrefix(dir, "/")
	}
	parts := strings.SplitN(below, "/", nameDepth+1)
	return path.Join(point, path.Join(parts[:min(len(parts), nameDepth)]...))
}

package apart

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

const (
	maxEntries = 20000 // that it looks at in all, 0.1 s of CPU
	maxInOne   = 5000  // in one directory
	nameDepth  = 3     // a directory is named by so many parts of its path: /var/log/app
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
	Starts []string // directories of the node; those on other file systems are left out
	Device uint64   // st_dev of the file system that it stays on
	Skip   []string // directories of the node that it does not open
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
	answer, _ := json.Marshal(tree.walk(h))
	_, _ = w.Write(answer)
}

// walk goes through the directories level by level.
func (t Tree) walk(h *host.Root) []Directory {
	type inode struct{ dev, ino uint64 }
	seen, held := map[inode]bool{}, map[string]*Directory{}
	queue, looked := slices.Clone(t.Starts), 0
	for len(queue) > 0 && looked < maxEntries {
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
		if unix.Fstat(int(d.Fd()), &own) != nil || uint64(own.Dev) != t.Device || seen[inode{own.Dev, own.Ino}] {
			d.Close()
			continue
		}
		seen[inode{own.Dev, own.Ino}] = true
		names, _ := d.Readdirnames(min(maxInOne, maxEntries-looked))
		looked += len(names)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT) != nil || uint64(st.Dev) != t.Device {
				continue
			}
			below := path.Join(dir, name)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				queue = append(queue, below)
			}
			label := shortPath(dir)
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
func shortPath(dir string) string {
	parts := strings.SplitN(strings.TrimPrefix(dir, "/"), "/", nameDepth+1)
	return "/" + path.Join(parts[:min(len(parts), nameDepth)]...)
}

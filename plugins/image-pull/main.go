// Command image-pull tells of image pulls that hang: a part of an image of
// which nothing arrives any more while the runtime still waits for it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/containerd"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	age            time.Duration
	containerdRoot string
	crioTemp       string
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "image-pull",
		Condition: "ImagePullStalled",
		Purpose: "An image pull has hung: nothing of a layer arrives any more. Its pods stay in ContainerCreating, and where kubelet pulls one image after the other so do all after it.\n" +
			"The runtime's API does not tell of pulls, so this looks at the files they write: one that a runtime holds open and has not written for --age.",
		Reads: []string{
			"containerd's content store: ingest/*/{ref,total,startedat}, and when and how far data was written", "CRI-O's downloads: /var/tmp/container_images_storage*, /var/tmp/storage*",
			"when a pull seems to hang: /proc/*/stat, /proc/PID/cgroup and the links in /proc/PID/fd of the runtime; small files of blobs/sha256 and blobs/sha512; /var/lib/kubelet/image_manager/pulling (names of images)"},
		Needs:            "the host's /proc, and containerd's data (/var/lib) or /run/crio and /var/tmp, below --host-root, without hostPID; CAP_SYS_PTRACE to see what the runtime holds open",
		LookAlikes:       "a slow download that advances; what a killed runtime left behind; a download by podman or another tool of the kind",
		Example:          "--host-root=/host --age=3m",
		FailureThreshold: 2,
		Timeout:          20 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.age, "age", 3*time.Minute, "Problem when nothing has arrived for this `duration`")
			fs.StringVar(&c.containerdRoot, "containerd-root", "", "`directory` of containerd's data, as the host sees it (default: those of containerd, k3s, RKE2, k0s and MicroK8s that are there)")
			fs.StringVar(&c.crioTemp, "crio-temp", "/var/tmp", "`directory` of CRI-O's downloads (big_files_temporary_dir), as the host sees it")
		},
		Look: c.look,
	})
}

// download is a part of an image that is being fetched, or was.
type download struct {
	containerd.Ingest         // of CRI-O only the size, the time of the last write, and the file are known
	runtime           runtime // whose file it is
	idle              time.Duration
	writer            procfs.Stat // that holds the file open
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	found, err := c.downloads(l)
	if errors.Is(err, errNoRuntime) {
		return plugin.Undecidedf("no image store below %s: mount the host's, or set --containerd-root; looked for %s of CRI-O and %s", l.Host.Path("/"), crioSockets, strings.Join(c.roots(), ", "))
	}
	if err != nil && len(found) == 0 {
		return plugin.Unknownf("downloads cannot be seen: %v: mount the host's directory, or set --containerd-root or --crio-temp", err)
	}
	ahead := 0 // of the clock
	for _, d := range found {
		if d.Written.After(l.Now) && d.idle < c.age {
			ahead++
		}
	}
	quiet := slices.DeleteFunc(found, func(d download) bool { return d.idle < c.age })
	advance := len(found) - len(quiet)
	stalled := quiet
	if len(quiet) > 0 {
		var writersErr error
		if stalled, writersErr = c.held(l, quiet); writersErr != nil && len(stalled) == 0 {
			return plugin.Unknownf("%d downloads do not advance, but not known whether a runtime waits for them: %v", len(quiet), writersErr)
		}
	}
	if err != nil && len(stalled) == 0 {
		return plugin.Unknownf("downloads cannot be seen: %v: mount the host's directory, or set --containerd-root or --crio-temp", err)
	}
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "downloads_stalled", Value: float64(len(stalled)), Unit: "downloads"},
		{Name: "downloads_advancing", Value: float64(advance), Unit: "downloads"},
	}}
	if len(stalled) == 0 {
		v.Message = fmt.Sprintf("no image pull is stalled; downloads that advance: %d", advance)
		if len(quiet) > 0 {
			v.Message += fmt.Sprintf(", that no runtime waits for: %d", len(quiet))
		}
		if ahead > 0 {
			v.Suspicion = plugin.Count(ahead, "download") + " with a last write later than the clock"
		}
		return v
	}
	v.Status = plugin.Problem
	slices.SortStableFunc(stalled, func(a, b download) int { return cmp.Compare(b.idle, a.idle) })
	v.Message, v.Details = describe(ctx, l, stalled, advance)
	return v
}

// errNoRuntime says that the host has neither containerd's data nor CRI-O's
// sockets.
var errNoRuntime = errors.New("no container runtime")

// roots are the directories in which containerd may have its data. What a
// removed distribution left in one is nobody's pull, and is found to be that.
func (c *check) roots() []string {
	if c.containerdRoot != "" {
		return []string{c.containerdRoot}
	}
	return containerd.Roots
}

// downloads lists what the runtimes of the host fetch. What cannot be read is an
// error beside the rest.
func (c *check) downloads(l *plugin.Look) (found []download, err error) {
	var stores []fs.FileInfo
	for _, root := range c.roots() {
		store, statErr := l.Host.Stat(root)
		if host.Gone(statErr) || statErr == nil && slices.ContainsFunc(stores, func(s fs.FileInfo) bool { return os.SameFile(s, store) }) {
			continue // or a link to one that was seen
		}
		ingests, storeErr := containerd.Ingests(l.Host, root, l.Now.Add(-c.age))
		if host.Gone(storeErr) {
			continue
		}
		stores = append(stores, store)
		err = errors.Join(err, storeErr)
		for _, in := range ingests {
			found = append(found, download{Ingest: in, runtime: containerdRuntime})
		}
	}
	_, crioErr := l.Host.Stat(crioSockets)
	if crioErr == nil {
		var files []download
		files, crioErr = crioDownloads(l.Host, c.crioTemp)
		found = append(found, files...)
		err = errors.Join(err, crioErr)
	} else if len(stores) == 0 {
		err = errNoRuntime
	}
	c.setIdle(l, found)
	return found, err
}

// unwritten remembers a file whose last write lies ahead of the clock.
type unwritten struct {
	Written int64  `json:"written"` // as the clock told then, in ns since 1970
	Size    uint64 `json:"size"`
	Since   int64  `json:"since"` // when it was first seen so, in ns since the boot
}

// setIdle tells for how long each file was not written. Where the clock was set
// back behind the last write, that is counted from the first look that saw it
// so, on the clock that nobody sets.
func (c *check) setIdle(l *plugin.Look, found []download) {
	var last, next map[string]unwritten
	for i := range found {
		d := &found[i]
		if d.idle = l.Now.Sub(d.Written); d.idle >= 0 {
			continue
		}
		d.idle = 0
		uptime, err := procfs.Uptime(l.Host)
		if err != nil {
			l.Log.Warnf("%s was written in the future, and the time since the boot is not known: %v", d.DataFile, err)
			continue
		}
		if last == nil {
			last, next = map[string]unwritten{}, map[string]unwritten{}
			l.Recall(&last)
		}
		seen, ok := last[d.DataFile]
		if !ok || seen.Written != d.Written.UnixNano() || seen.Size != d.Size || seen.Since > int64(uptime) {
			seen = unwritten{d.Written.UnixNano(), d.Size, int64(uptime)}
		}
		next[d.DataFile] = seen
		d.idle = uptime - time.Duration(seen.Since)
	}
	if next != nil {
		l.Remember(next)
	}
}

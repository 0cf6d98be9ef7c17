package main

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/plugin"
)

// shutDown returns the XFS file systems that have shut down, which is what XFS
// does after an error instead of turning read-only. Nothing in /proc and /sys
// tells; but whoever opens a directory of one gets EIO. The way there may lead
// across a mount that hangs: the paths are opened apart.
func shutDown(ctx context.Context, l *plugin.Look, all []*filesystem) (bad []*filesystem) {
	var asked []*filesystem
	var paths []string
	for _, fs := range all {
		if fs.kind == "xfs" && fs.cause == "" && len(fs.writable) > 0 {
			asked, paths = append(asked, fs), append(paths, fs.writable[0].Point)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	answers, err := apart.Statfs(ctx, l.Host, paths)
	if err != nil {
		l.Log.Warnf("whether XFS has shut down is not known: %v", err)
		return nil
	}
	for i, fs := range asked {
		switch a := answers[i]; {
		case errors.Is(a.Err, unix.EIO):
			fs.cause = "has shut down"
			bad = append(bad, fs)
		case errors.Is(a.Err, apart.ErrHangs):
			l.Log.Warnf("whether %s has shut down is not known: %v", fs.name(), a.Err)
		case a.Err != nil: // no such path, say, where only /proc and /sys are mounted
			l.Log.Infof("whether %s has shut down is not known: %v", fs.name(), a.Err)
		case a.Device != unix.Mkdev(fs.major, fs.minor):
			l.Log.Infof("whether %s has shut down is not known: %s is another file system here", fs.name(), l.Host.Path(paths[i]))
		}
	}
	return bad
}

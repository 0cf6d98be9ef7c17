package procfs

import "bytes"

// Counter finds a key's number in a file of lines "key number", such as vmstat
// and the stat files of cgroups, or "Key: number kB" of meminfo, with the
// colon in the key. The unit is that of the file.
func Counter(file []byte, key string) (n uint64, ok bool) {
	prefix := []byte(key + " ")
	for line := range bytes.Lines(file) {
		if rest, found := bytes.CutPrefix(line, prefix); found {
			if f := bytes.Fields(rest); len(f) > 0 {
				return number(f[0])
			}
		}
	}
	return 0, false
}

package procfs

import (
	"bytes"
	"time"
)

// Listens lists the paths at which the process listens with unix stream
// sockets, as it has bound them. It takes CAP_SYS_PTRACE to tell which of the
// sockets of its network namespace are its own.
func (p Process) Listens() (paths []string, err error) {
	b, err := p.host.ReadFile(p.dir + "/net/unix")
	if err != nil {
		return nil, err
	}
	listening := parseUnix(b)
	err = p.eachLink(func(link []byte) {
		inode, ok := bytes.CutPrefix(link, []byte("socket:["))
		if path := listening[string(bytes.TrimSuffix(inode, []byte("]")))]; ok && path != "" {
			paths = append(paths, path)
		}
	})
	return paths, err
}

// parseUnix reads a /proc/PID/net/unix file: the paths of the stream sockets
// that listen, by inode (net/unix/af_unix.c, unix_seq_show). Abstract names
// begin with "@".
func parseUnix(b []byte) map[string]string {
	const accepts, stream = "00010000", "0001" // __SO_ACCEPTCON, SOCK_STREAM
	listening := map[string]string{}
	for line := range bytes.Lines(b) {
		// Num RefCount Protocol Flags Type St Inode Path
		f := bytes.SplitN(bytes.Join(bytes.Fields(line), []byte(" ")), []byte(" "), 8)
		if len(f) == 8 && string(f[3]) == accepts && string(f[4]) == stream {
			listening[string(f[6])] = string(f[7])
		}
	}
	return listening
}

// CPU is the time for which the threads of the process have run so far.
func (p Process) CPU() (time.Duration, error) {
	b, err := p.host.ReadFile(p.dir + "/stat")
	if err != nil {
		return 0, err
	}
	if _, err := ParseStat(b); err != nil {
		return 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the third field on
	user, _ := number(f[14-3])
	system, _ := number(f[15-3])
	return time.Duration(user+system) * ClockTick, nil
}

// HostsNamespace says whether the process is in the PID namespace that this
// /proc is of, and not in one below it, as those of containers are. Before Linux
// 4.1 the kernel does not tell, and all are.
func (p Process) HostsNamespace() bool {
	b, err := p.host.ReadFile(p.dir + "/status")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		if pids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			return len(bytes.Fields(pids)) == 1
		}
	}
	return true
}

// Executable is the path to which the link exe leads. Reading it takes
// CAP_SYS_PTRACE.
func (p Process) Executable() (string, error) {
	return p.host.Readlink(p.dir + "/exe")
}

// Command scan does the least that tells the state of every process: it lists /proc, and opens, reads and closes each
// stat file. With the argument "threads" it then lists the threads of each process too, and reads theirs. It is what the
// checks of zombies and of stuck tasks are measured against.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var stat = make([]byte, 4096)

func main() {
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	threads := len(os.Args) > 1
	tasks := 0
	for _, name := range list(dir, make([]byte, 32<<10)) {
		if name[0] < '1' || name[0] > '9' || !read(dir, name) {
			continue
		}
		tasks++
		if threads {
			tasks += scanThreads(dir, name)
		}
	}
	fmt.Println(tasks)
}

var buffer = make([]byte, 32<<10)

func scanThreads(proc int, name string) (tasks int) {
	dir, err := unix.Openat(proc, name+"/task", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(dir)
	for _, tid := range list(dir, buffer) {
		if tid != name && read(dir, tid) {
			tasks++
		}
	}
	return tasks
}

func list(dir int, buffer []byte) (names []string) {
	for {
		n, err := unix.Getdents(dir, buffer)
		if err != nil || n == 0 {
			return names
		}
		_, _, names = unix.ParseDirent(buffer[:n], -1, names)
	}
}

func read(dir int, name string) bool {
	fd, err := unix.Openat(dir, name+"/stat", unix.O_RDONLY, 0)
	if err != nil {
		return false
	}
	unix.Read(fd, stat)
	unix.Close(fd)
	return true
}

// Command app is the program of the corpus' pods, and of their sandboxes: it answers probes and ends when told to.
package main

import (
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "exit" { // init containers, jobs and exec probes
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	}
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		go serve(":8080")
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}

// serve answers every connection as an HTTP server that is well. net/http would make the image three times as large.
func serve(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		os.Exit(1)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			continue
		}
		connection.Read(make([]byte, 4096))
		connection.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
		connection.Close()
	}
}

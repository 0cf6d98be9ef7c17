package main

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
)

// wrappedLine is what the supervisor of k0s makes of each line of a program it runs: the msg= of a line of its own, in logrus' text
// format. All of them have the identifier k0s.
var wrappedLine = regexp.MustCompile(`^time="[^"]*" level=[a-z]+ msg=("(?:[^"\\]|\\.)*"|[^ "]+)(?: chunk=[0-9]+)? component=([^ "=]+) stream=std(?:err|out)$`)

// wrapped are the components of k0s whose lines count. Others, such as kube-apiserver and etcd, say alike things of other connections.
var wrapped = []string{"kubelet", "containerd"}

// unwrap returns what a component wrote, and whether it is one that counts. A message of another form is one.
func unwrap(message []byte) (inner []byte, counts bool) {
	if !bytes.HasSuffix(message, []byte(" stream=stderr")) && !bytes.HasSuffix(message, []byte(" stream=stdout")) {
		return message, true
	}
	m := wrappedLine.FindSubmatch(message)
	if m == nil {
		return message, true
	}
	inner = m[1]
	if inner[0] == '"' {
		text, err := strconv.Unquote(string(inner))
		if err != nil {
			return message, true
		}
		inner = []byte(text)
	}
	return bytes.TrimSpace(inner), slices.Contains(wrapped, string(m[2]))
}

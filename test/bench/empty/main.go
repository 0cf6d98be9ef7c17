// Command empty does nothing. It is what starting and ending any Go program
// costs, with Go's own settings and not those of this module.
//
//go:debug updatemaxprocs=1
package main

func main() {}

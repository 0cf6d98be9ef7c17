// Command empty does nothing. It is what starting and ending any Go program costs.
package main

func main() {}

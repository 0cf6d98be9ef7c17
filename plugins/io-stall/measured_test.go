package main

var measurements = []measured{}

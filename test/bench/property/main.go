// Command property does the least that tells something of systemd: it connects to the socket that is its argument and
// asks for one property. It is what systemd-units is measured against.
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"
)

func main() {
	conn, err := dbus.Dial("unix:path=" + os.Args[1])
	if err == nil {
		err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	}
	var names uint32
	if err == nil {
		err = conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").StoreProperty("org.freedesktop.systemd1.Manager.NNames", &names)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(names)
}

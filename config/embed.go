// Package config holds the configurations of the checks for programs that need them without the files.
package config

import "embed"

// Files are the configurations.
//
//go:embed *.json
var Files embed.FS

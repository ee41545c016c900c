//go:build tools

// Package tools pins what the sandbox builds: see sandbox/inventory.py.
package tools

import _ "github.com/zalando/skipper/cmd/skipper"

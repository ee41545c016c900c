//go:build tools

// Package tools pins what the sandbox builds: see sandbox/inventory.py.
package tools

import _ "github.com/rancher/local-path-provisioner"

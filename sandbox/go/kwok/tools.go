//go:build tools

// Package tools pins what the sandbox builds: see sandbox/inventory.py.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"

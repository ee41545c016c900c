//go:build tools

// Package tools pins what the sandbox builds: see sandbox/inventory.py.
package tools

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"

//go:build tools

// Package tools pins what the sandbox builds: see sandbox/inventory.py.
package tools

import _ "helm.sh/helm/v4/cmd/helm"

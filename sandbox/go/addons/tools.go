//go:build tools

// Package tools pins what the sandbox builds: see sandbox/inventory.py. These programs share one module
// because much of what they are made of is the same, most of all Kubernetes' client: so it is compiled once.
package tools

import (
	_ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
	_ "github.com/rancher/local-path-provisioner"
	_ "github.com/zalando/skipper/cmd/skipper"
	_ "sigs.k8s.io/kwok/cmd/kwok"
)

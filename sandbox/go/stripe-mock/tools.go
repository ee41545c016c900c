//go:build tools

// Package tools pins stripe-mock: it checks every request of ours, and its OpenAPI document every answer of
// the Stripe stand-in.
package tools

import _ "github.com/stripe/stripe-mock"

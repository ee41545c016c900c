//go:build tools

// Package tools pins stripe-mock: its OpenAPI document is what the Stripe stand-in is checked against.
package tools

import _ "github.com/stripe/stripe-mock"

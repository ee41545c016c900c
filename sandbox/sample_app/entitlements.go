package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// entitlements is what the customer bought. Berth writes it into a file that changes when the plan does.
type entitlements struct {
	Instance string            `json:"instance"`
	Customer string            `json:"customer"`
	Product  string            `json:"product"`
	Title    string            `json:"title"`
	Plan     string            `json:"plan"`
	Slug     string            `json:"slug"`
	Limits   map[string]*int64 `json:"limits"` // nil: unlimited
}

var errEntitlements = errors.New("cannot tell what was bought")

func loadEntitlements(path string) (entitlements, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return entitlements{}, fmt.Errorf("%w: %w", errEntitlements, err)
	}
	var loaded entitlements
	if err := json.Unmarshal(content, &loaded); err != nil {
		return entitlements{}, fmt.Errorf("%w: %s: %w", errEntitlements, path, err)
	}
	return loaded, nil
}

// noteLimit says how many notes may be kept, and whether there is a limit at all.
func (e entitlements) noteLimit() (limit int64, limited bool) {
	if meter := e.Limits["notes"]; meter != nil {
		return *meter, true
	}
	return 0, false
}

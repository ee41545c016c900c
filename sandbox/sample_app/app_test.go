package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const bought = `{"instance": "i1", "customer": "Acme", "product": "mindroom", "title": "MindRoom",
	"plan": "starter", "slug": "acme", "limits": {"notes": 2, "users": null}}`

type fixture struct {
	app          *app
	server       *httptest.Server
	entitlements string
}

func start(t *testing.T, entitled string) fixture {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, "entitlements.json")
	write(t, file, entitled)
	notes, err := openNotes(folder)
	if err != nil {
		t.Fatal(err)
	}
	app := newApp(file, notes, modeOK)
	server := httptest.NewServer(app.routes())
	t.Cleanup(func() { server.Close(); notes.close() })
	return fixture{app, server, file}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// call sends a request and gives its status and body; the body as JSON where it is.
func (f fixture) call(t *testing.T, method, path, body string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, f.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := f.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var decoded map[string]any
	if err := json.NewDecoder(response.Body).Decode(&decoded); err != nil {
		t.Fatalf("%s %s answered %d without JSON: %v", method, path, response.StatusCode, err)
	}
	return response.StatusCode, decoded
}

func TestInfoFollowsTheEntitlementsFile(t *testing.T) {
	f := start(t, bought)
	_, info := f.call(t, "GET", "/api/info", "")
	if info["customer"] != "Acme" || info["plan"] != "starter" || info["instance"] != "i1" {
		t.Fatalf("not what was bought: %v", info)
	}
	limits, _ := info["limits"].(map[string]any)
	if limits["notes"] != 2.0 || limits["users"] != nil {
		t.Fatalf("limits: %v", limits)
	}
	write(t, f.entitlements, strings.Replace(bought, "starter", "professional", 1))
	if _, info := f.call(t, "GET", "/api/info", ""); info["plan"] != "professional" {
		t.Fatalf("still the old plan: %v", info)
	}
}

func TestNotesAreLimitedByThePlan(t *testing.T) {
	f := start(t, bought)
	for number := range 2 {
		if status, answer := f.call(t, "POST", "/api/notes", `{"text": "a note"}`); status != 201 {
			t.Fatalf("note %d: %d %v", number, status, answer)
		}
	}
	status, answer := f.call(t, "POST", "/api/notes", `{"text": "one too many"}`)
	if status != 403 || !strings.Contains(fmt.Sprint(answer["error"]), "limit") {
		t.Fatalf("third note: %d %v", status, answer)
	}
	write(t, f.entitlements, strings.Replace(bought, `"notes": 2`, `"notes": null`, 1))
	if status, _ := f.call(t, "POST", "/api/notes", `{"text": "unlimited now"}`); status != 201 {
		t.Fatalf("unlimited plan: %d", status)
	}
}

func TestWrongNotesAreRefused(t *testing.T) {
	f := start(t, bought)
	large := `{"text": "` + strings.Repeat("x", maxBodyBytes) + `"}`
	for body, expected := range map[string]int{
		large: 413, `{"text": " "}`: 400, `{"text": 1}`: 400, `nonsense`: 400, `{"text": "a"} {}`: 400,
	} {
		if status, answer := f.call(t, "POST", "/api/notes", body); status != expected {
			t.Errorf("%.20s: %d %v", body, status, answer)
		}
	}
	if _, answer := f.call(t, "GET", "/api/notes", ""); len(answer["notes"].([]any)) != 0 {
		t.Errorf("kept: %v", answer)
	}
}

func TestMissingEntitlementsAreTheServersFault(t *testing.T) {
	f := start(t, bought)
	if err := os.Remove(f.entitlements); err != nil {
		t.Fatal(err)
	}
	if status, _ := f.call(t, "GET", "/api/info", ""); status != 500 {
		t.Errorf("info: %d", status)
	}
	if status, _ := f.call(t, "POST", "/api/notes", `{"text": "a"}`); status != 500 {
		t.Errorf("note: %d", status)
	}
}

func TestPageEscapesAndKeepsNotes(t *testing.T) {
	f := start(t, bought)
	form := url.Values{"text": {"<script>alert(1)</script>"}}
	response, err := f.server.Client().PostForm(f.server.URL+"/", form)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	page := string(body)
	for _, expected := range []string{"acme", "starter", "MindRoom", "unlimited", "&lt;script&gt;alert(1)"} {
		if !strings.Contains(page, expected) {
			t.Errorf("the page lacks %q", expected)
		}
	}
	if strings.Contains(page, "<script>") {
		t.Error("a note reached the page as HTML")
	}
}

func TestSwitchedToFailAndBack(t *testing.T) {
	f := start(t, bought)
	f.call(t, "POST", "/api/switch", `{"mode": "fail"}`)
	if status, _ := f.call(t, "GET", "/healthz", ""); status != 500 {
		t.Fatalf("told to fail, answered %d", status)
	}
	if status, _ := f.call(t, "POST", "/api/switch", `{"mode": "crash"}`); status != 400 {
		t.Fatalf("crash is only for the start: %d", status)
	}
	f.call(t, "POST", "/api/switch", `{"mode": "ok"}`)
	if status, _ := f.call(t, "GET", "/healthz", ""); status != 200 {
		t.Fatalf("told to be well, answered %d", status)
	}
}

func TestHangingLastsUntilTheCallerGivesUp(t *testing.T) {
	f := start(t, bought)
	f.call(t, "POST", "/api/switch", `{"mode": "hang"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", f.server.URL+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := f.server.Client().Do(request)
	if err == nil {
		response.Body.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("it answered: %v", err)
	}
	if status, _ := f.call(t, "GET", "/api/info", ""); status != 200 {
		t.Fatalf("only the health check hangs: %d", status)
	}
}

func TestHalfWrittenNoteIsForgotten(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, "notes.jsonl"), `{"text":"whole","created":"2026-01-02T03:04:05Z"}`+"\n"+`{"text":"ha`)
	notes, err := openNotes(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer notes.close()
	if err := notes.add(note{Text: "next"}, 10); err != nil {
		t.Fatal(err)
	}
	again, err := openNotes(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if texts := textsOf(t, again); texts != "whole,next" {
		t.Fatal(texts)
	}
}

func TestTwoProcessesShareTheNotes(t *testing.T) {
	folder := t.TempDir()
	old, err := openNotes(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer old.close()
	young, err := openNotes(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer young.close()
	unlock, err := old.lock()
	if err != nil {
		t.Fatal(err)
	}
	added := make(chan error, 1)
	go func() { added <- young.add(note{Text: "second"}, 2) }()
	select {
	case err := <-added:
		t.Fatalf("it did not wait for the one that writes (%v)", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := old.write([]byte("{\"text\": \"first\"}\n")); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	if texts := textsOf(t, old); texts != "first,second" {
		t.Fatal(texts)
	}
	if err := old.add(note{Text: "third"}, 2); !errors.Is(err, errTooManyNotes) {
		t.Fatalf("the other's note does not count: %v", err)
	}
}

func textsOf(t *testing.T, notes *noteFile) string {
	t.Helper()
	kept, err := notes.list()
	if err != nil {
		t.Fatal(err)
	}
	texts := make([]string, len(kept))
	for index, one := range kept {
		texts[index] = one.Text
	}
	return strings.Join(texts, ",")
}

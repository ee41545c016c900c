package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxBodyBytes = 64 << 10
	shownNotes   = 50
)

// mode is how the application behaves: well, or badly on purpose.
type mode string

const (
	modeOK    mode = "ok"
	modeHang  mode = "hang"
	modeFail  mode = "fail"
	modeCrash mode = "crash" // only at start
)

func parseMode(text string) (mode, error) {
	known := []mode{modeOK, modeHang, modeFail, modeCrash}
	if !slices.Contains(known, mode(text)) {
		return "", fmt.Errorf("mode %q is not one of %v", text, known)
	}
	return mode(text), nil
}

//go:embed page.html
var pageSource string

type app struct {
	entitlementsFile string
	notes            *noteFile
	page             *template.Template
	started          time.Time
	mode             atomic.Value // mode
	requests         atomic.Int64
}

func newApp(entitlementsFile string, notes *noteFile, start mode) *app {
	created := &app{
		entitlementsFile: entitlementsFile,
		notes:            notes,
		page:             template.Must(template.New("page").Parse(pageSource)),
		started:          time.Now().UTC(),
	}
	created.mode.Store(start)
	return created
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.showPage)
	mux.HandleFunc("POST /{$}", a.addFromPage)
	mux.HandleFunc("GET /api/info", a.showInfo)
	mux.HandleFunc("GET /api/notes", a.listNotes)
	mux.HandleFunc("POST /api/notes", a.addNote)
	mux.HandleFunc("POST /api/switch", a.switchMode)
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /metrics", a.metrics)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		mux.ServeHTTP(w, r)
	})
}

func (a *app) showInfo(w http.ResponseWriter, _ *http.Request) {
	bought, err := loadEntitlements(a.entitlementsFile)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	hostname, err := os.Hostname()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, http.StatusOK, struct {
		entitlements
		Hostname  string    `json:"hostname"`
		StartedAt time.Time `json:"started_at"`
	}{bought, hostname, a.started})
}

func (a *app) listNotes(w http.ResponseWriter, _ *http.Request) {
	notes, err := a.notes.list()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, http.StatusOK, map[string][]note{"notes": notes})
}

func (a *app) addNote(w http.ResponseWriter, r *http.Request) {
	var sent struct {
		Text string `json:"text"`
	}
	if err := readJSON(r, &sent); err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	added, err := a.keep(sent.Text)
	if err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	answer(w, http.StatusCreated, added)
}

func (a *app) addFromPage(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		err = fmt.Errorf("%w: %w", errBadRequest, err)
		a.render(w, statusOf(err), err.Error())
		return
	}
	if _, err := a.keep(r.PostForm.Get("text")); err != nil {
		a.render(w, statusOf(err), err.Error())
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// keep stores a note if the plan has room for it.
func (a *app) keep(text string) (note, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return note{}, fmt.Errorf("%w: a note needs some text", errBadRequest)
	}
	bought, err := loadEntitlements(a.entitlementsFile)
	if err != nil {
		return note{}, err
	}
	limit, limited := bought.noteLimit()
	if !limited {
		limit = math.MaxInt64
	}
	added := note{Text: text, Created: time.Now().UTC()}
	return added, a.notes.add(added, limit)
}

// switchMode changes how /healthz behaves, so that a person or a test can see Berth notice.
func (a *app) switchMode(w http.ResponseWriter, r *http.Request) {
	var sent struct {
		Mode string `json:"mode"`
	}
	if err := readJSON(r, &sent); err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	wanted, err := parseMode(sent.Mode)
	if err != nil || wanted == modeCrash {
		refuse(w, http.StatusBadRequest, fmt.Errorf("%w: mode is ok, hang or fail", errBadRequest))
		return
	}
	a.mode.Store(wanted)
	answer(w, http.StatusOK, map[string]mode{"mode": wanted})
}

func (a *app) health(w http.ResponseWriter, r *http.Request) {
	switch a.mode.Load() {
	case modeHang:
		<-r.Context().Done()
	case modeFail:
		refuse(w, http.StatusInternalServerError, errors.New("told to fail"))
	default:
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	}
}

func (a *app) metrics(w http.ResponseWriter, _ *http.Request) {
	notes, err := a.notes.list()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	up := 0
	if a.mode.Load() == modeOK {
		up = 1
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	metric := func(name, kind, help string, value int64) {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, help, name, kind, name, value)
	}
	metric("notes_total", "gauge", "Notes kept.", int64(len(notes)))
	metric("requests_total", "counter", "Requests received since the start.", a.requests.Load())
	metric("up", "gauge", "1 while the application is not told to hang or fail.", int64(up))
}

func (a *app) showPage(w http.ResponseWriter, _ *http.Request) {
	a.render(w, http.StatusOK, "")
}

func (a *app) render(w http.ResponseWriter, status int, problem string) {
	bought, err := loadEntitlements(a.entitlementsFile)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	notes, err := a.notes.list()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	slices.Reverse(notes)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
	w.WriteHeader(status)
	shown := pageData{bought, notes[:min(len(notes), shownNotes)], len(notes), problem}
	if err := a.page.Execute(w, shown); err != nil {
		slog.Warn("page not sent", "error", err)
	}
}

type pageData struct {
	entitlements
	Notes   []note
	Count   int
	Problem string
}

var errBadRequest = errors.New("the request is wrong")

// readJSON reads a body that is exactly one JSON value.
func readJSON(r *http.Request, into any) error {
	decoder := json.NewDecoder(r.Body)
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one JSON value: %w", errBadRequest, err)
	}
	return nil
}

func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, errTooManyNotes):
		return http.StatusForbidden
	case errors.Is(err, errNoRoom):
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		slog.Warn("answer not sent", "error", err)
	}
}

func refuse(w http.ResponseWriter, status int, err error) {
	answer(w, status, map[string]string{"error": err.Error()})
}

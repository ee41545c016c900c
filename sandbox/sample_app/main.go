// Command sample is a small application that Berth runs once per customer: it shows what the customer
// bought, keeps notes on its volume, and can be told to hang or to fail.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	headerTimeout   = 5 * time.Second
	requestTimeout  = 30 * time.Second
	shutdownTimeout = 10 * time.Second
	maxHeaderBytes  = 16 << 10
)

func main() {
	if err := run(); err != nil {
		slog.Error("sample stopped", "error", err)
		os.Exit(1)
	}
}

func run() error {
	mode, err := parseMode(environment("BERTH_SAMPLE_MODE", string(modeOK)))
	if err != nil {
		return err
	}
	if mode == modeCrash {
		return errors.New("told to crash by BERTH_SAMPLE_MODE")
	}
	notes, err := openNotes(environment("DATA_DIR", "/data"))
	if err != nil {
		return err
	}
	defer notes.close()
	app := newApp(environment("BERTH_ENTITLEMENTS_FILE", "/etc/berth/entitlements.json"), notes, mode)
	return serve(environment("PORT", "8080"), app)
}

// serve answers requests until SIGTERM or SIGINT, then lets those in flight end.
func serve(port string, app *app) error {
	stopping, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	server := &http.Server{
		Addr:              net.JoinHostPort(environment("HOST", ""), port),
		Handler:           app.routes(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// A request that hangs on purpose ends with the server.
		BaseContext: func(net.Listener) context.Context { return stopping },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	slog.Info("serving", "address", server.Addr)
	select {
	case err := <-failed:
		return err
	case <-stopping.Done():
	}
	deadline, stop := context.WithTimeout(context.Background(), shutdownTimeout)
	defer stop()
	return server.Shutdown(deadline)
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// Load sends prepared HTTP requests over keep-alive connections and times the answers.
//
// Closed loop (no -rate): each connection sends again as soon as it is answered. Open loop: requests come due
// at random moments (Poisson) whether or not earlier ones are answered, and each is timed from when it was due,
// as `pgbench --rate` does it.
//
// Requests come on standard input, each after its length in bytes (four, big-endian). What came of it goes to
// standard output as JSON: seconds until the last answer, how many answers were not 200, and a latency in
// seconds for each that was.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const answerSeconds = 15

type outcome struct {
	Seconds   float64   `json:"seconds"`
	Refused   int       `json:"refused"`
	Latencies []float64 `json:"latencies"`
}

// source hands out requests, each once; due says when it was to be sent.
type source struct {
	requests [][]byte
	next     atomic.Int64
	due      func() (time.Time, bool)
}

func (s *source) take() ([]byte, time.Time, bool) {
	due, more := s.due()
	if !more {
		return nil, due, false
	}
	at := s.next.Add(1) - 1
	if at >= int64(len(s.requests)) {
		return nil, due, false
	}
	return s.requests[at], due, true
}

func main() {
	port := flag.Int("port", 0, "port on the loopback interface")
	connections := flag.Int("connections", 1, "connections at once")
	seconds := flag.Float64("seconds", 1, "how long to send")
	rate := flag.Float64("rate", 0, "requests per second; 0 for as many as are answered")
	flag.Parse()
	requests, err := readRequests(bufio.NewReaderSize(os.Stdin, 1<<20))
	if err != nil {
		log.Fatal(err)
	}
	found, err := run(requests, *port, *connections, time.Duration(*seconds*float64(time.Second)), *rate)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

func readRequests(input io.Reader) ([][]byte, error) {
	var requests [][]byte
	for {
		var size uint32
		if err := binary.Read(input, binary.BigEndian, &size); errors.Is(err, io.EOF) {
			return requests, nil
		} else if err != nil {
			return nil, err
		}
		request := make([]byte, size)
		if _, err := io.ReadFull(input, request); err != nil {
			return nil, err
		}
		requests = append(requests, request)
	}
}

func run(requests [][]byte, port, connections int, lasts time.Duration, rate float64) (outcome, error) {
	open := make([]net.Conn, connections)
	for i := range open {
		connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return outcome{}, err
		}
		defer connection.Close()
		open[i] = connection
	}
	started := time.Now()
	end := started.Add(lasts)
	requestsLeft := &source{requests: requests, due: untilEnd(end)}
	if rate > 0 {
		requestsLeft.due = poisson(started, end, rate, len(requests))
	}
	parts := make([]outcome, connections)
	failures := make([]error, connections)
	var all sync.WaitGroup
	for i, connection := range open {
		all.Add(1)
		go func() {
			defer all.Done()
			failures[i] = serve(connection, requestsLeft, end, &parts[i])
		}()
	}
	all.Wait()
	whole := outcome{Seconds: time.Since(started).Seconds()}
	for _, part := range parts {
		whole.Refused += part.Refused
		whole.Latencies = append(whole.Latencies, part.Latencies...)
	}
	return whole, errors.Join(failures...)
}

func untilEnd(end time.Time) func() (time.Time, bool) {
	return func() (time.Time, bool) {
		now := time.Now()
		return now, now.Before(end)
	}
}

func poisson(started, end time.Time, rate float64, most int) func() (time.Time, bool) {
	due := make(chan time.Time, most)
	go func() {
		chance := rand.New(rand.NewSource(1)) // the same moments in every run
		at := started
		for {
			at = at.Add(time.Duration(chance.ExpFloat64() / rate * float64(time.Second)))
			if at.After(end) {
				close(due)
				return
			}
			time.Sleep(time.Until(at))
			due <- at
		}
	}()
	return func() (time.Time, bool) {
		at, more := <-due
		return at, more
	}
}

func serve(connection net.Conn, requests *source, end time.Time, found *outcome) error {
	answers := bufio.NewReader(connection)
	if err := connection.SetDeadline(end.Add(answerSeconds * time.Second)); err != nil {
		return err
	}
	for {
		request, due, more := requests.take()
		if !more {
			return nil
		}
		if _, err := connection.Write(request); err != nil {
			return err
		}
		status, err := readAnswer(answers)
		if err != nil {
			return err
		}
		if status == 200 {
			found.Latencies = append(found.Latencies, time.Since(due).Seconds())
		} else {
			found.Refused++
		}
	}
}

// readAnswer reads one response to its end and returns its status.
func readAnswer(answers *bufio.Reader) (int, error) {
	line, err := answers.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("not an answer: %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length := 0
	for {
		line, err := answers.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			_, err := answers.Discard(length)
			return status, err
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
}

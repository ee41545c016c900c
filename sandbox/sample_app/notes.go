package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// maxNotesBytes bounds disk and memory where a plan sets no limit.
const maxNotesBytes = 32 << 20

var (
	errTooManyNotes = errors.New("the plan's limit for notes is reached")
	errNoRoom       = errors.New("there is no room for the note")
)

type note struct {
	Text    string    `json:"text"`
	Created time.Time `json:"created"`
}

// noteFile keeps notes as lines of JSON in a file that only grows. A note that was answered for is on disk.
// During a rollout two processes share the file: writers lock it, and each reads what the other has added.
type noteFile struct {
	mutex sync.Mutex
	file  *os.File
	size  int64 // of the whole lines read into notes
	notes []note
}

func openNotes(folder string) (*noteFile, error) {
	path := filepath.Join(folder, "notes.jsonl")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the notes: %w", err)
	}
	opened := &noteFile{file: file}
	if _, err := opened.list(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return opened, syncFolder(folder)
}

func (n *noteFile) list() ([]note, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if err := n.readOn(); err != nil {
		return nil, err
	}
	return append([]note{}, n.notes...), nil
}

// add stores a note durably; errTooManyNotes when `limit` notes are kept already.
func (n *noteFile) add(added note, limit int64) error {
	line, err := json.Marshal(added)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	n.mutex.Lock()
	defer n.mutex.Unlock()
	unlock, err := n.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.readOn(); err != nil {
		return err
	}
	if int64(len(n.notes)) >= limit {
		return errTooManyNotes
	}
	if n.size+int64(len(line)) > maxNotesBytes {
		return errNoRoom
	}
	if err := n.write(line); err != nil {
		return fmt.Errorf("%w: %w", errNoRoom, errors.Join(err, n.file.Truncate(n.size)))
	}
	n.size += int64(len(line))
	n.notes = append(n.notes, added)
	return nil
}

func (n *noteFile) write(line []byte) error {
	// Under the lock, what follows the last whole line is left from a crash: nobody was told it is kept.
	if err := n.file.Truncate(n.size); err != nil {
		return err
	}
	if _, err := n.file.Write(line); err != nil {
		return err
	}
	return n.file.Sync()
}

// readOn reads the whole lines that were added since it last did.
func (n *noteFile) readOn() error {
	reader := bufio.NewReader(io.NewSectionReader(n.file, n.size, maxNotesBytes))
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the notes: %w", err)
		}
		var read note
		if err := json.Unmarshal(line, &read); err != nil {
			return fmt.Errorf("%s is damaged at byte %d: %w", n.file.Name(), n.size, err)
		}
		n.notes = append(n.notes, read)
		n.size += int64(len(line))
	}
}

func (n *noteFile) lock() (unlock func(), err error) {
	descriptor := int(n.file.Fd())
	if err := syscall.Flock(descriptor, syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("cannot lock the notes: %w", err)
	}
	return func() { _ = syscall.Flock(descriptor, syscall.LOCK_UN) }, nil
}

func (n *noteFile) close() { _ = n.file.Close() }

// syncFolder makes a new file's name durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

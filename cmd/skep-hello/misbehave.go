package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

const (
	// maxFill bounds --fill-memory, in bytes.
	maxFill = 16 << 30
	// maxForks bounds --forks.
	maxForks = 10_000
	// fillStep is how much is allocated between two lines of progress.
	fillStep = 16 << 20
)

// fillMemory allocates size bytes and writes to each page, so that they count.
// They are held until release is called.
func fillMemory(out io.Writer, size int64) (release func()) {
	var held [][]byte
	for filled := int64(0); filled < size; {
		block := make([]byte, min(fillStep, size-filled))
		for n := 0; n < len(block); n += os.Getpagesize() {
			block[n] = 1
		}
		held = append(held, block)
		filled += int64(len(block))
		fmt.Fprintf(out, "fill-memory: %d of %d bytes\n", filled, size)
	}
	return func() { runtime.KeepAlive(held) }
}

// forks starts n children that wait until release is called or this process
// ends, and says how far it got.
func forks(out io.Writer, n int) (release func()) {
	hold, end, err := os.Pipe()
	if err != nil {
		fmt.Fprintf(out, "forks: 0 of %d: %v\n", n, err)
		return func() {}
	}
	var children []*exec.Cmd
	for range n {
		child := exec.Command("/proc/self/exe", "--sleeper")
		child.Stdin = hold
		if err = child.Start(); err != nil {
			break
		}
		children = append(children, child)
	}
	hold.Close()
	fmt.Fprintf(out, "forks: %d of %d", len(children), n)
	if err != nil {
		fmt.Fprintf(out, ": %v", err)
	}
	fmt.Fprintln(out)
	return func() {
		end.Close()
		for _, child := range children {
			child.Wait()
		}
	}
}

// note appends a line to a file and says what is in it: volumes outlive tasks, and read-only mounts refuse.
func note(out io.Writer, path string) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		fmt.Fprintln(out, "note:", err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString("noted\n"); err != nil {
		fmt.Fprintln(out, "note:", err)
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(out, "note:", err)
		return
	}
	fmt.Fprintf(out, "note: %d lines in %s\n", strings.Count(string(data), "\n"), path)
}

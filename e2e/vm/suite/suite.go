// Package suite is what a test machine and its host say to each other: what to run, and, one JSON object a line on a
// serial port, how it went.
//
// It is not a transport: lines may be lost only with the machine itself, and then nothing says that it is done.
package suite

import (
	"encoding/json"
	"io"
)

// Suite is one program to run, usually a compiled test.
type Suite struct {
	// Name says in reports which it is.
	Name string
	// Program is a path in the machine, Dir where it runs.
	Program, Dir string
	Args, Env    []string
}

// Kind says what a Message is about.
type Kind string

// Kinds of messages, in the order in which they come.
const (
	Booted Kind = "booted" // the machine is ready; Text is its kernel
	Broken Kind = "broken" // the machine could not be made ready; Text says why
	Begin  Kind = "begin"  // of a suite
	Output Kind = "output" // Text is a line that the suite printed
	End    Kind = "end"    // of a suite: Code and Seconds, and Text if it failed
	Done   Kind = "done"   // all suites ended
)

// Message is one line.
type Message struct {
	Kind    Kind    `json:"kind"`
	Suite   string  `json:"suite,omitempty"`
	Text    string  `json:"text,omitempty"`
	Code    int     `json:"code,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// MaxLine bounds a line of a suite's output, in bytes; tests print dumps of goroutines, line by line.
const MaxLine = 1 << 20

// Tell writes a message.
func Tell(w io.Writer, m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

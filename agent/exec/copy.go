package exec

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/client"
)

// copy copies files, in the direction that r says.
func (s *Server) copy(stream stream, id string, r client.CopyRequest) error {
	p, err := s.Runtime.Copy(stream.Context(), id, r)
	if err != nil {
		return kinded(err)
	}
	defer p.Close() // X1
	if err := begin(stream, id, false); err != nil {
		return err
	}
	var n notes
	session := newSession(stream, p)
	session.outputs[1].wrap = n.take
	code, err := session.run(stream.Context())
	if err != nil {
		return err
	}
	if err := n.err(code); err != nil {
		return err
	}
	return end(stream, 0, "")
}

// maxNote bounds a line of what a copying process says: a text with a few paths, after JSON's escaping.
const maxNote = 64 << 10

// notes reads what a copying process says.
type notes struct {
	rest    []byte // the beginning of a line
	failure *client.CopyNote
}

// take takes the next bytes, and gives the warnings in them for people.
func (n *notes) take(text []byte) *api.ConnectTaskResponse {
	n.rest = append(n.rest, text...)
	var out []byte
	for {
		line, rest, ended := bytes.Cut(n.rest, []byte("\n"))
		if !ended {
			break
		}
		n.rest = rest
		var note client.CopyNote
		switch err := json.Unmarshal(line, &note); {
		case err != nil: // of the language's runtime, at its end
			out = append(out, printable(string(line))+"\n"...)
		case note.Error != "":
			n.failure = &note
		default:
			out = append(out, "warning: "+printable(note.Warning)+"\n"...)
		}
	}
	if len(n.rest) > maxNote {
		n.rest = nil
	}
	if len(out) == 0 {
		return nil
	}
	return stderr(out)
}

// err words the end of the process: nil if it copied everything.
func (n *notes) err(code int) error {
	switch {
	case n.failure != nil:
		kind := fault.Precondition
		switch n.failure.Kind {
		case client.CopyNotFound:
			kind = fault.NotFound
		case client.CopyInvalid:
			kind = fault.Invalid
		case client.CopyLimit:
			kind = fault.Exhausted
		}
		return fault.New(kind, "%s", printable(n.failure.Error))
	case code != 0:
		return fault.New(fault.Unavailable, "the copy was ended before it was whole (code %d): did the task end, or the node run out of memory?", code)
	}
	return nil
}

// printable shows what a terminal would take as a command. Names of files are a container's to choose.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

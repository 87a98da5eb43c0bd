package supervisor

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skep-io/skep/runtime/logfile"
)

// restSuffix is of the file beside a container's pipes that has what came of a line whose end has not: the log takes whole lines,
// and the pipe has given it away. It is not durable: when the machine stops, so does the container. It is written after the log: a
// supervisor that is killed between the two leaves a part of a line that the log has, and it is there twice, but never lost.
//
//	4 bytes   length, little endian
//	the text  what follows it in the file is of longer ones before
const restSuffix = ".rest"

// keepRest brings the file up to date.
func (p *outPipe) keepRest() {
	if p.stream == nil {
		return
	}
	rest := p.stream.Rest()
	if len(rest) == 0 && !p.kept {
		return
	}
	text := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(rest)), uint32(len(rest)))
	f, err := os.OpenFile(p.restPath(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return // a full disk, which the log tells of
	}
	defer f.Close()
	// At once, so that a process that is killed leaves either text.
	if _, err := f.Write(append(text, rest...)); err == nil {
		p.kept = len(rest) > 0
	}
}

// recallRest takes up what the supervisor before had read of a line.
func (p *outPipe) recallRest() error {
	if p.stream == nil {
		return nil
	}
	text, err := os.ReadFile(p.restPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(text) < 4 {
		return nil // nothing was written yet
	}
	n := binary.LittleEndian.Uint32(text)
	if n > logfile.MaxText || int(n) > len(text)-4 {
		return errRecord
	}
	_, _ = p.stream.Write(text[4 : 4+n]) // never fails
	p.kept = n > 0
	return nil
}

func (p *outPipe) restPath() string { return filepath.Join(p.output.dir, p.name+restSuffix) }

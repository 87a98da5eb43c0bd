package auditfile

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

const (
	version = 1
	// maxLine is the length of a line in bytes: an entry has eleven texts of 256 bytes, each of which JSON may write six times as long.
	maxLine = 64 << 10
	// The types of lines.
	typeLog   = "log"
	typeEntry = "entry"
)

// LineError is returned for a line that can't be one of an export.
type LineError struct {
	// Line is its number, from 1 on.
	Line int
	Err  error
}

// Error names the line.
func (e *LineError) Error() string {
	return fmt.Sprintf("line %d is not one of an audit export: %v", e.Line, e.Err)
}

// Unwrap returns what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// place is an api.AuditHead.
type place struct {
	Sequence    uint64     `json:"sequence"`
	Hash        string     `json:"hash"`
	RecoveredAt *time.Time `json:"recovered_at,omitempty"`
}

// line is a line of either type.
type line struct {
	Type      string `json:"type"`
	Version   int    `json:"version,omitempty"`
	ClusterID string `json:"cluster_id,omitempty"`
	Anchor    *place `json:"anchor,omitempty"`
	Head      *place `json:"head,omitempty"`

	Sequence   uint64     `json:"sequence,omitempty"`
	Time       *time.Time `json:"time,omitempty"`
	Method     string     `json:"method,omitempty"`
	CallerKind string     `json:"caller_kind,omitempty"`
	Caller     string     `json:"caller,omitempty"`
	Address    string     `json:"address,omitempty"`
	Manager    string     `json:"manager,omitempty"`
	ObjectKind string     `json:"object_kind,omitempty"`
	ObjectID   string     `json:"object_id,omitempty"`
	ObjectName string     `json:"object_name,omitempty"`
	Result     string     `json:"result,omitempty"`
	Summary    string     `json:"summary,omitempty"`
	RequestID  string     `json:"request_id,omitempty"`
	Count      uint64     `json:"count,omitempty"`
	FirstAt    *time.Time `json:"first_at,omitempty"`
	Hash       string     `json:"hash,omitempty"`
}

func instant(nanos int64) *time.Time {
	if nanos == 0 {
		return nil
	}
	t := time.Unix(0, nanos).UTC()
	return &t
}

func nanosOf(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return t.UnixNano()
}

func placeOf(h *api.AuditHead) *place {
	return &place{Sequence: h.GetSequence(), Hash: hex.EncodeToString(h.GetHash()), RecoveredAt: instant(h.GetRecoveredAt())}
}

func (p *place) head() (*api.AuditHead, error) {
	if p == nil {
		return nil, errors.New("it has no anchor or head")
	}
	hash, err := hex.DecodeString(p.Hash)
	return &api.AuditHead{Sequence: p.Sequence, Hash: hash, RecoveredAt: nanosOf(p.RecoveredAt)}, err
}

// WriteLog writes the first line.
func WriteLog(w io.Writer, log *api.AuditLog) error {
	return write(w, &line{
		Type: typeLog, Version: version, ClusterID: log.GetClusterId(), Anchor: placeOf(log.GetAnchor()), Head: placeOf(log.GetHead()),
	})
}

// WriteEntry writes the line of an entry.
func WriteEntry(w io.Writer, entry *api.AuditEntry) error {
	e := entry.GetEvent()
	if len(e.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("audit entry %d was made by a newer version of skep: use that one's command line", entry.GetSequence())
	}
	at := entry.GetTime().AsTime()
	return write(w, &line{
		Type: typeEntry, Sequence: entry.GetSequence(), Time: &at, Method: e.GetMethod(), CallerKind: e.GetCallerKind(), Caller: e.GetCaller(),
		Address: e.GetAddress(), Manager: e.GetManager(), ObjectKind: e.GetObjectKind(), ObjectID: e.GetObjectId(),
		ObjectName: e.GetObjectName(), Result: e.GetResult(), Summary: e.GetSummary(), RequestID: e.GetRequestId(),
		Count: e.GetCount(), FirstAt: instant(int64(e.GetFirstAt())), Hash: hex.EncodeToString(entry.GetHash()),
	})
}

func write(w io.Writer, l *line) error {
	encoded, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode a line: %w", err)
	}
	_, err = w.Write(append(encoded, '\n'))
	return err
}

// Reader reads an export. Make one with NewReader.
type Reader struct {
	lines *bufio.Scanner
	n     int
	// Log is what the first line says; never nil.
	Log *api.AuditLog
}

// NewReader reads the first line of an export.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{lines: bufio.NewScanner(from)}
	r.lines.Buffer(make([]byte, 0, 4096), maxLine)
	l, err := r.next(typeLog)
	if errors.Is(err, io.EOF) {
		return nil, &LineError{Line: 1, Err: errors.New("the file is empty")}
	}
	if err != nil {
		return nil, err
	}
	if l.Version != version {
		return nil, &LineError{Line: 1, Err: fmt.Errorf("version %d is not known, only %d", l.Version, version)}
	}
	anchor, anchorErr := l.Anchor.head()
	head, headErr := l.Head.head()
	if err := errors.Join(anchorErr, headErr); err != nil {
		return nil, &LineError{Line: 1, Err: err}
	}
	r.Log = &api.AuditLog{ClusterId: l.ClusterID, Anchor: anchor, Head: head}
	return r, nil
}

// Next returns the next entry, or io.EOF after the last.
func (r *Reader) Next() (*api.AuditEntry, error) {
	l, err := r.next(typeEntry)
	if err != nil {
		return nil, err
	}
	hash, err := hex.DecodeString(l.Hash)
	if err != nil || l.Time == nil {
		return nil, &LineError{Line: r.n, Err: errors.Join(err, errors.New("an entry needs a time and a hash"))}
	}
	return &api.AuditEntry{Sequence: l.Sequence, Time: timestamppb.New(*l.Time), Hash: hash, Event: &api.AuditEvent{
		Method: l.Method, CallerKind: l.CallerKind, Caller: l.Caller, Address: l.Address, Manager: l.Manager, ObjectKind: l.ObjectKind,
		ObjectId: l.ObjectID, ObjectName: l.ObjectName, Result: l.Result, Summary: l.Summary, RequestId: l.RequestID, Count: l.Count,
		FirstAt: uint64(nanosOf(l.FirstAt)),
	}}, nil
}

// next reads a line, which must be of a type.
func (r *Reader) next(wanted string) (*line, error) {
	if !r.lines.Scan() {
		if err := r.lines.Err(); err != nil {
			return nil, &LineError{Line: r.n + 1, Err: err}
		}
		return nil, io.EOF
	}
	r.n++
	d := json.NewDecoder(bytes.NewReader(r.lines.Bytes()))
	d.DisallowUnknownFields()
	l := new(line)
	if err := d.Decode(l); err != nil {
		return nil, &LineError{Line: r.n, Err: err}
	}
	if l.Type != wanted {
		return nil, &LineError{Line: r.n, Err: fmt.Errorf("its type is %q, not %q", l.Type, wanted)}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &LineError{Line: r.n, Err: errors.New("something follows the object")}
	}
	return l, nil
}

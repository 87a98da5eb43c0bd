package chain

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// MaxText is the length in bytes of a text in an event: longer ones are cut. It bounds what a caller can write into the log.
const MaxText = 256

// ErrEncoding is returned when an event or a segment is not encoded as this package does it.
var ErrEncoding = errors.New("not the encoding of an audit log")

// Encode returns the one encoding of an event, with its texts cut to MaxText.
func Encode(e *api.AuditEvent) []byte {
	var b []byte
	for i, text := range []string{
		e.GetMethod(), e.GetCallerKind(), e.GetCaller(), e.GetAddress(), e.GetManager(), e.GetObjectKind(), e.GetObjectId(),
		e.GetObjectName(), e.GetResult(), e.GetSummary(), e.GetRequestId(),
	} {
		if text = Clip(text); text != "" {
			b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), text)
		}
	}
	for i, number := range []uint64{e.GetCount(), e.GetFirstAt()} {
		if number != 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(i+12), protowire.VarintType), number)
		}
	}
	return append(b, e.ProtoReflect().GetUnknown()...) // of newer versions, which have higher numbers
}

// Decode returns the event that Encode encoded, or ErrEncoding (C1).
func Decode(b []byte) (*api.AuditEvent, error) {
	e := new(api.AuditEvent)
	if err := proto.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrEncoding, err) //nolint:errorlint // protobuf's errors are texts only
	}
	if !bytes.Equal(Encode(e), b) {
		return nil, ErrEncoding
	}
	return e, nil
}

// Clip returns text as an event holds it: valid UTF-8 of MaxText bytes at most.
func Clip(text string) string {
	const more = "…"
	if len(text) > MaxText {
		return strings.ToValidUTF8(text[:MaxText-len(more)], "") + more
	}
	return strings.ToValidUTF8(text, "")
}

package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// Limits of a frame.
const (
	// MaxMessage holds a configuration with the most arguments (1 MiB) after JSON's escaping.
	MaxMessage = 8 << 20
	// MaxAttachment holds 16 secrets or configs and a seccomp profile of the largest size, 1 MiB.
	MaxAttachment = 17 << 20
)

// ErrFrame is returned when a frame is malformed or too long. The connection is of no use after it.
var ErrFrame = errors.New("malformed message")

// Write sends a message and an attachment, which may be empty.
func Write(w io.Writer, message any, attachment ...[]byte) error {
	text, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	size := 0
	for _, a := range attachment {
		size += len(a)
	}
	if len(text) > MaxMessage || size > MaxAttachment {
		return fmt.Errorf("%w: %d bytes with %d attached, at most %d with %d are possible", ErrFrame, len(text), size,
			MaxMessage, MaxAttachment)
	}
	head := binary.BigEndian.AppendUint32(make([]byte, 0, 8), uint32(len(text)))
	head = binary.BigEndian.AppendUint32(head, uint32(size))
	parts := append(net.Buffers{head, text}, attachment...) // which go out at once: the peer is woken but once
	if _, err := parts.WriteTo(w); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Read receives a message into message, and gives its attachment, which is the caller's. It gives io.EOF if the peer
// closed the connection between messages.
func Read(r io.Reader, message any) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("receive message: %w", err)
	}
	length, size := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
	if length == 0 || length > MaxMessage || size > MaxAttachment { // I2
		return nil, fmt.Errorf("%w: %d bytes with %d attached", ErrFrame, length, size)
	}
	text, err := readFull(r, length)
	if err != nil {
		return nil, err
	}
	attachment, err := readFull(r, size)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(message)
	if err == nil && d.InputOffset() != int64(length) {
		err = errors.New("text after the message")
	}
	if err != nil {
		clear(attachment)
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return attachment, nil
}

// readFull reads n bytes into one buffer of that size: one that grew would leave parts of a secret behind in the
// memory of the smaller ones (I1).
func readFull(r io.Reader, n uint32) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		clear(b)
		return nil, fmt.Errorf("receive message: %w", err)
	}
	return b, nil
}

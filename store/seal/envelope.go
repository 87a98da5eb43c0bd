package seal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Kind says what an envelope holds. Part of what is on disk.
type Kind byte

// The kinds.
const (
	KindEntry     Kind = 1 // a log entry
	KindHardState Kind = 2 // term, vote and commit
	KindSnapshot  Kind = 3 // a part of a snapshot
	KindRing      Kind = 4 // a key ring
	KindIdentity  Kind = 5 // who a data directory belongs to
	KindMark      Kind = 6 // which snapshot the log starts from
	KindFrame     Kind = 7 // records of the log that became durable in one step
)

// Place is where an envelope belongs. It is not stored: whoever opens the envelope must know it.
type Place struct {
	Kind    Kind
	Cluster string
	Index   uint64
	Term    uint64
	// Part counts the parts of a snapshot; its highest bit marks the last.
	Part uint64
}

const (
	envelopeFormat = 1
	headerSize     = 1 + 4
	// Overhead is how much longer an envelope is than its content, in bytes.
	Overhead = headerSize + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
	// kekID marks envelopes that a KEK sealed.
	kekID = 0
)

// associated returns the associated data of an envelope with the header at a place.
func (p Place) associated(header []byte) []byte {
	b := append([]byte("skep seal"), header...)
	b = append(b, byte(p.Kind))
	b = binary.BigEndian.AppendUint64(b, p.Index)
	b = binary.BigEndian.AppendUint64(b, p.Term)
	b = binary.BigEndian.AppendUint64(b, p.Part)
	return append(b, p.Cluster...) // last, as it has no fixed length
}

// sealWith appends an envelope to dst.
func sealWith(dst []byte, k Key, id uint32, p Place, content []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(k.bytes[:])
	if err != nil {
		return nil, err
	}
	start := len(dst)
	dst = append(dst, envelopeFormat)
	dst = binary.BigEndian.AppendUint32(dst, id)
	header := dst[start:]
	var nonce [chacha20poly1305.NonceSizeX]byte
	rand.Read(nonce[:]) // never fails, see crypto/rand
	associated := p.associated(header)
	dst = append(dst, nonce[:]...)
	return aead.Seal(dst, nonce[:], content, associated), nil
}

// keyID returns the id of the key that sealed an envelope.
func keyID(envelope []byte) (uint32, error) {
	if len(envelope) < Overhead {
		return 0, fmt.Errorf("%w: %d bytes are too few", ErrOpen, len(envelope))
	}
	if envelope[0] != envelopeFormat {
		return 0, fmt.Errorf("%w: envelope format %d", ErrOpen, envelope[0])
	}
	return binary.BigEndian.Uint32(envelope[1:]), nil
}

// openWith returns the content of an envelope.
func openWith(k Key, p Place, envelope []byte) ([]byte, error) {
	if _, err := keyID(envelope); err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(k.bytes[:])
	if err != nil {
		return nil, err
	}
	nonce := envelope[headerSize : headerSize+chacha20poly1305.NonceSizeX]
	content, err := aead.Open(nil, nonce, envelope[headerSize+len(nonce):], p.associated(envelope[:headerSize]))
	if err != nil {
		return nil, ErrOpen
	}
	return content, nil
}

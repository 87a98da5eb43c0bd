package control

import (
	"context"
	"crypto/sha256"
	"math/big"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/object"
)

// requestIDKey is the metadata key of the caller's request id, and maxRequestID its length in bytes at most: a UUID, a ULID or
// an id of the store fits.
const (
	requestIDKey = "skep-request-id"
	maxRequestID = 64
)

// requestID returns the id of a call for the store: derived from the caller's id and the method, so that one id used for two
// methods does no harm, else fresh. It has the form of an object's id and is one, for what the call creates (C2).
func requestID(ctx context.Context, method string) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	ids := md.Get(requestIDKey)
	if len(ids) == 0 {
		return object.NewID(), nil
	}
	id := ids[0]
	if len(ids) > 1 || id == "" || len(id) > maxRequestID {
		return "", fault.New(fault.Invalid, "%s: give one id of 1 to %d characters, unique to this request", requestIDKey, maxRequestID)
	}
	return derivedID(method, id), nil
}

// derivedID returns an id that is the same for the same parts.
func derivedID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	digits := new(big.Int).SetBytes(sum[:16]).Text(36)
	return strings.Repeat("0", object.IDLength-len(digits)) + digits
}

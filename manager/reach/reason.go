package reach

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason says why a node that was asked did not answer, in words for people; tooOld is that its version does not know the question, such
// as "keeps no statistics".
func Reason(err error, tooOld string) error {
	switch status.Code(err) {
	case codes.Unimplemented:
		return errors.New("the node runs a version that " + tooOld + ": upgrade it")
	case codes.DeadlineExceeded:
		return Silent
	case codes.Unavailable:
		return errors.New("the node can't be reached")
	default:
		return errors.New(status.Convert(err).Message())
	}
}

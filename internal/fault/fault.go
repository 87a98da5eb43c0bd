package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kind is a class of faults that callers treat alike.
type Kind int

// The kinds. Internal is the zero value, so that an error that nobody classified tells a client nothing.
const (
	// Internal is a defect or a broken environment. Its text is not sent to clients.
	Internal Kind = iota
	// NotFound is an object, image or node that isn't there.
	NotFound
	// AlreadyExists is a name or id that is taken.
	AlreadyExists
	// Invalid is input that can't be right, whatever the state.
	Invalid
	// PermissionDenied is a caller who is known and may not.
	PermissionDenied
	// Unauthenticated is a caller who proved nothing that counts.
	Unauthenticated
	// Conflict is a change made from a version that is no longer current.
	Conflict
	// Precondition is a request that the present state forbids.
	Precondition
	// NotLeader is a write asked of a manager that doesn't lead; [Leader] tells who does.
	NotLeader
	// Exhausted is a limit that was reached.
	Exhausted
	// Unavailable is something that may work when tried again.
	Unavailable
)

// kinds is the one table of names and gRPC codes, in the order of the constants.
//
// NotLeader shares FailedPrecondition with Precondition and is told apart by its detail.
func kinds() []struct {
	name string
	code codes.Code
} {
	return []struct {
		name string
		code codes.Code
	}{
		Internal:         {"internal", codes.Internal},
		NotFound:         {"not found", codes.NotFound},
		AlreadyExists:    {"already exists", codes.AlreadyExists},
		Invalid:          {"invalid", codes.InvalidArgument},
		PermissionDenied: {"permission denied", codes.PermissionDenied},
		Unauthenticated:  {"unauthenticated", codes.Unauthenticated},
		Conflict:         {"conflict", codes.Aborted},
		Precondition:     {"precondition", codes.FailedPrecondition},
		NotLeader:        {"not leader", codes.FailedPrecondition},
		Exhausted:        {"exhausted", codes.ResourceExhausted},
		Unavailable:      {"unavailable", codes.Unavailable},
	}
}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	all := kinds()
	if k < 0 || int(k) >= len(all) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return all[k].name
}

// notLeaderReason marks the detail of a NotLeader status, and leaderKey is the leader's address in it.
const (
	notLeaderReason = "NOT_LEADER"
	errorDomain     = "skep"
	leaderKey       = "leader"
)

// kinded is an error with a kind.
type kinded struct {
	kind   Kind
	leader string
	err    error
}

func (e *kinded) Error() string { return e.err.Error() }
func (e *kinded) Unwrap() error { return e.err }

// New returns an error of a kind. The format is that of [fmt.Errorf], %w included.
func New(kind Kind, format string, args ...any) error {
	return &kinded{kind: kind, err: fmt.Errorf(format, args...)}
}

// NewNotLeader returns an error of the kind NotLeader that carries the leader's address, or "" while there is none.
func NewNotLeader(leader string) error {
	err := errors.New("this manager is not the leader, and no leader is known: more than half of the managers must be online")
	if leader != "" {
		err = fmt.Errorf("this manager is not the leader: %s is", leader)
	}
	return &kinded{kind: NotLeader, leader: leader, err: err}
}

// Clip shortens a text from outside to that many bytes, for an error or a record that repeats it.
func Clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}

// Wrap gives err a kind. It returns nil for nil.
func Wrap(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{kind: kind, err: err}
}

// KindOf returns the kind of err: that of the outermost fault in its chain, else that of a gRPC status in it, else Internal.
func KindOf(err error) Kind {
	var k *kinded
	if errors.As(err, &k) {
		return k.kind
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Unavailable
	}
	if st, ok := status.FromError(err); ok && err != nil {
		return kindOfStatus(st)
	}
	return Internal
}

// Leader returns the leader's address that a NotLeader error carries, or "".
func Leader(err error) string {
	var k *kinded
	if errors.As(err, &k) {
		return k.leader
	}
	return ""
}

// Status returns err as a gRPC status error for a client. The text of an Internal error is left out: log it before.
// A status error that is already there passes through. It returns nil for nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	var k *kinded
	if !errors.As(err, &k) {
		return unkindedStatus(err)
	}
	if k.kind == Internal {
		return status.Error(codes.Internal, "internal error: see the manager's log")
	}
	st := status.New(kinds()[k.kind].code, err.Error())
	if k.kind != NotLeader {
		return st.Err()
	}
	detailed, detailErr := st.WithDetails(&errdetails.ErrorInfo{
		Reason: notLeaderReason, Domain: errorDomain, Metadata: map[string]string{leaderKey: k.leader},
	})
	if detailErr != nil {
		return st.Err()
	}
	return detailed.Err()
}

func unkindedStatus(err error) error {
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the request took too long")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the request was cancelled")
	}
	return status.Error(codes.Internal, "internal error: see the manager's log")
}

// FromStatus turns an error that a gRPC client got back into a fault with the server's text. Others pass through.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	return &kinded{kind: kindOfStatus(st), leader: leaderOf(st), err: errors.New(st.Message())}
}

func kindOfStatus(st *status.Status) Kind {
	switch st.Code() {
	case codes.FailedPrecondition:
		if notLeaderDetail(st) != nil {
			return NotLeader
		}
		return Precondition
	case codes.DeadlineExceeded, codes.Canceled:
		return Unavailable
	case codes.OutOfRange:
		return Invalid
	}
	for kind, row := range kinds() {
		if row.code == st.Code() {
			return Kind(kind)
		}
	}
	return Internal
}

func leaderOf(st *status.Status) string {
	if info := notLeaderDetail(st); info != nil {
		return info.GetMetadata()[leaderKey]
	}
	return ""
}

func notLeaderDetail(st *status.Status) *errdetails.ErrorInfo {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetReason() == notLeaderReason && info.GetDomain() == errorDomain {
			return info
		}
	}
	return nil
}

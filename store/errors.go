package store

import (
	"errors"
	"fmt"

	"github.com/skep-io/skep/store/object"
)

// Errors that a caller can branch on, with errors.Is.
var (
	// ErrNotFound is returned when there is no object with the id.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned when an object with the id is already there.
	ErrExists = errors.New("already exists")
	// ErrNameConflict is returned when another object of the kind has the name.
	ErrNameConflict = errors.New("name is already in use")
	// ErrConflict is returned when the object changed since it was read.
	ErrConflict = errors.New("update out of sequence")
	// ErrTooLarge is returned when a limit on sizes forbids a write; the error is a *LimitError.
	ErrTooLarge = errors.New("too large")
	// ErrNotLeader is returned when a write reaches a manager that is not the leader; the error is a *NotLeaderError.
	ErrNotLeader = errors.New("this manager is not the leader")
	// ErrDuplicate is returned when the request id was applied before; the error is a *DuplicateError.
	ErrDuplicate = errors.New("the request was applied before")
	// ErrResync is returned when a watcher is too far behind: it must read everything anew.
	ErrResync = errors.New("too far behind, read everything anew")
	// ErrStopped is returned when the store is not running any more.
	ErrStopped = errors.New("the store is stopped")
	// ErrBusy is returned when the leader can't take a write now: it waits for the others, or hands over. Nothing was done.
	ErrBusy = errors.New("the store can't take more writes now, try again")
	// ErrRemoved is returned when a manager is not a member of the group any more.
	ErrRemoved = errors.New("this manager was removed from the swarm")
	// ErrQuorum is returned when an operation would leave the group without a majority that answers.
	ErrQuorum = errors.New("this would lose the quorum of managers")
	// ErrOutdated is returned when a manager's program is too old for a change; the error is an *OutdatedError.
	ErrOutdated = errors.New("its version of skep is too old")
	// ErrInvalid is returned when an object or a request id has a form that the store does not take.
	ErrInvalid = errors.New("invalid")
)

// NotLeaderError says where the leader is. It matches ErrNotLeader.
type NotLeaderError struct {
	// LeaderID is the node id of the leader, or empty while there is none.
	LeaderID string
	// LeaderAddr is the host:port of the leader, or empty while there is none.
	LeaderAddr string
	// Uncertain says that the write may still be applied: leadership was lost after it was proposed. Sending it again with
	// the same request id is safe.
	Uncertain bool
}

// Error names the leader, if there is one.
func (e *NotLeaderError) Error() string {
	text := ErrNotLeader.Error()
	if e.Uncertain {
		text = "this manager lost leadership; the write may or may not have been applied"
	}
	if e.LeaderAddr == "" {
		return text + ", and no leader is known"
	}
	return fmt.Sprintf("%s; the leader is %s at %s", text, e.LeaderID, e.LeaderAddr)
}

// Is makes the error match ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// DuplicateError says what became of the first request with the same id. It matches ErrDuplicate. For most callers it is
// success: what they ask for is done.
type DuplicateError struct {
	RequestID string
	// Index is where the first request was applied.
	Index Index
	// Created names the objects that the first request created, in its order.
	Created []Ref
}

// Error says where the request was applied.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("request %s: %v, at index %d", e.RequestID, ErrDuplicate, e.Index)
}

// Is makes the error match ErrDuplicate.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// LimitError says what is too large. It matches ErrTooLarge.
type LimitError struct {
	// What is too large: "service x1…" or "transaction".
	What string
	// Size and Limit are in bytes.
	Size, Limit int
}

// Error says what is too large, and by how much.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s is %d bytes, but the limit is %d", e.What, e.Size, e.Limit)
}

// Is makes the error match ErrTooLarge.
func (e *LimitError) Is(target error) bool { return target == ErrTooLarge }

// Ref names an object.
type Ref struct {
	Kind object.Kind
	ID   string
}

// String returns the kind and the id: "service x1…".
func (r Ref) String() string { return r.Kind.String() + " " + r.ID }

func refOf(o Object) Ref { return Ref{object.KindOf(o), o.GetId()} }

package ca

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// Follow takes in what a manager says to a node when a session begins and whenever it changes: the roots to trust, as PEM, as of a
// version of the cluster object, and the wish of a rotation for another certificate, or nil, which Run meets. Roots of a manager that is
// behind change nothing. Roots that can't be saved are tried again by Run; the error is for the log. Its caller makes one call at a time.
func (r *Renewer) Follow(version uint64, roots []byte, wish *api.RenewalRequest) error {
	var err error
	if len(roots) > 0 && version >= r.version { // a manager that has just joined has none
		r.version = version
		if err = r.trustPEM(roots); err != nil {
			err = fmt.Errorf("follow the roots of the swarm: %w", err)
		}
	}
	if wish == nil || proto.Equal(wish, r.wanted.Load()) {
		return err
	}
	r.wanted.Store(wish)
	wake(r.asked)
	return err
}

func (r *Renewer) trustPEM(text []byte) error {
	roots, err := ParseRoots(text)
	if err != nil {
		return err
	}
	err = r.Trust(roots)
	if err != nil && !errors.Is(err, ErrMismatch) {
		r.unsaved.Store(&roots)
		wake(r.again)
	}
	return err
}

// saveAgain makes those roots trusted that could not be saved, unless others have come meanwhile. It reports whether that is settled.
func (r *Renewer) saveAgain() bool {
	roots := r.unsaved.Swap(nil)
	if roots == nil {
		return true
	}
	err := r.Trust(*roots)
	if err == nil || errors.Is(err, ErrMismatch) {
		return true
	}
	r.cfg.Logger.Error("new roots are not saved, trying again", "error", err)
	r.unsaved.CompareAndSwap(nil, roots)
	return false
}

// meet says that the last wish is met, if it is. Run calls it while no renewal is under way, so that a certificate of an earlier wish
// can't come any more. It reports whether it is met.
func (r *Renewer) meet() bool {
	wish := r.wanted.Load()
	if wish == nil || !bytes.Equal(r.cfg.Identity.Current().issuerKeyDigest(), wish.GetIssuerKeyDigest()) {
		return wish == nil
	}
	r.cfg.Identity.setMet(wish.GetRotationId())
	return true
}

// wake leaves a signal in a channel that has room for one.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is as good as two
	}
}

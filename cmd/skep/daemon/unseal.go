package daemon

import (
	"context"
	"errors"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/store/seal"
)

// unsealed is what a node needs of its disk to come back.
type unsealed struct {
	keys        *nodeKeys
	credentials ca.Credentials
	// kek opens the store, or on a node without one will seal it.
	kek    seal.Key
	source seal.Source
}

// unseal opens the node's credentials, and finds the key of its store, which comes from source; 0 is for a node without a store. It
// returns keyfile.ErrLocked when that needs an unlock key, and none, or another one, was given.
func (d *Daemon) unseal(ctx context.Context, source seal.Source, unlock seal.Key) (unsealed, error) {
	switch source {
	case seal.SourceUnlockKey:
		return d.unsealUnlocked(unlock)
	case 0:
		return d.unsealStoreless(ctx, unlock)
	}
	kek, err := d.own.of(ctx, source)
	if err != nil {
		return unsealed{}, err
	}
	u := unsealed{keys: openKeys(d.cfg.DataDir, holdersOf(kek, source)), kek: kek, source: source}
	u.credentials, err = u.keys.Load()
	return u, err
}

// unsealUnlocked opens an autolocked manager.
func (d *Daemon) unsealUnlocked(unlock seal.Key) (u unsealed, err error) {
	u = unsealed{keys: openKeys(d.cfg.DataDir, nil), kek: unlock, source: seal.SourceUnlockKey}
	if !unlock.IsZero() {
		u.keys = openKeys(d.cfg.DataDir, holders{unlock})
	}
	u.credentials, err = u.keys.Load()
	if err == nil && unlock.IsZero() {
		err = keyfile.ErrLocked
	}
	return u, err
}

// unsealStoreless opens a worker, or a manager that has not got its store yet, by whichever key does, and seals it by the node's
// own from then on. A manager on its way may have taken the unlock key already.
func (d *Daemon) unsealStoreless(ctx context.Context, unlock seal.Key) (u unsealed, err error) {
	opening, closed := d.own.found(ctx)
	if !unlock.IsZero() {
		opening = append(opening, unlock)
	}
	u.keys = openKeys(d.cfg.DataDir, opening)
	if u.credentials, err = u.keys.Load(); err != nil {
		if errors.Is(err, keyfile.ErrLocked) && closed != nil {
			err = closed
		}
		return u, err
	}
	if u.kek, u.source, err = d.own.get(ctx); err != nil {
		return u, err
	}
	err = u.keys.Protect(holdersOf(u.kek, u.source))
	if err == nil {
		err = d.own.keepOnly(u.source)
	}
	return u, err
}

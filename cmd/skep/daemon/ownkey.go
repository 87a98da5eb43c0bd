package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/seal/credential"
	"github.com/skep-io/skep/store/vfs"
)

// KeyProvider says what keeps this node's own key, which seals its disk while the swarm has no unlock key.
type KeyProvider string

// The providers.
const (
	// ProviderFile is a file beside the data.
	ProviderFile KeyProvider = "file"
	// ProviderTPM2 is a file beside the data that only this machine's TPM2 opens.
	ProviderTPM2 KeyProvider = "tpm2"
	// ProviderHost is a file beside the data that systemd's key of this host opens.
	ProviderHost KeyProvider = "systemd-host"
	// ProviderCredential is the credential that the unit's LoadCredentialEncrypted= opens.
	ProviderCredential KeyProvider = "credential"
	// ProviderAuto is the best that is there: a credential, else a TPM2, else the file.
	ProviderAuto KeyProvider = "auto"
)

// valid reports whether p is a provider.
func (p KeyProvider) valid() bool {
	switch p {
	case ProviderFile, ProviderTPM2, ProviderHost, ProviderCredential, ProviderAuto:
		return true
	}
	return false
}

// Names in the data directory of what holds the node's own key.
const (
	keyFile     = "store.key"
	tpm2KeyFile = "store.tpm2.cred"
	hostKeyFile = "store.host.cred"
)

// ownKey is this node's own key, wherever the provider keeps it. It holds no key in memory.
type ownKey struct {
	disk     disk
	provider KeyProvider // "" is ProviderFile
	// credentials is the service manager's directory of credentials, or "".
	credentials string
}

// errNoOwnKey is returned when the key is missing that a node's data were sealed by.
var errNoOwnKey = errors.New("it is not there")

// get returns the key of the provider, and makes it if it is not there yet.
func (o ownKey) get(ctx context.Context) (seal.Key, seal.Source, error) {
	source := o.source(ctx)
	key, err := o.of(ctx, source)
	if errors.Is(err, errNoOwnKey) {
		key, err = o.create(ctx, source)
	}
	return key, source, err
}

// source returns where the provider keeps the key. What ProviderAuto chose once, it keeps, so that a TPM2 that is slow to appear
// never leads back to the file.
func (o ownKey) source(ctx context.Context) seal.Source {
	switch o.provider {
	case ProviderTPM2:
		return seal.SourceTPM2
	case ProviderHost:
		return seal.SourceHostKey
	case ProviderCredential:
		return seal.SourceCredential
	case ProviderAuto:
		switch {
		case o.has(seal.SourceCredential):
			return seal.SourceCredential
		case o.has(seal.SourceTPM2), credential.HasTPM2(ctx):
			return seal.SourceTPM2
		}
	}
	return seal.SourceKeyFile
}

// path returns the file of a source, or "" for one that has none here.
func (o ownKey) path(source seal.Source) string {
	switch source {
	case seal.SourceKeyFile:
		return o.disk.path(keyFile)
	case seal.SourceTPM2:
		return o.disk.path(tpm2KeyFile)
	case seal.SourceHostKey:
		return o.disk.path(hostKeyFile)
	case seal.SourceCredential:
		if o.credentials != "" {
			return filepath.Join(o.credentials, credential.Name)
		}
	}
	return ""
}

func (o ownKey) has(source seal.Source) bool {
	path := o.path(source)
	_, err := os.Stat(path)
	return path != "" && err == nil
}

// of returns the key of a source that is there. It returns errNoOwnKey when the file of one that keeps a file is not.
func (o ownKey) of(ctx context.Context, source seal.Source) (seal.Key, error) {
	key, err := o.read(ctx, source)
	if err != nil {
		return seal.Key{}, o.fault(source, err)
	}
	return key, nil
}

func (o ownKey) read(ctx context.Context, source seal.Source) (seal.Key, error) {
	path := o.path(source)
	switch source {
	case seal.SourceCredential:
		return credential.Service(o.credentials)
	case seal.SourceKeyFile, seal.SourceTPM2, seal.SourceHostKey:
	default:
		return seal.Key{}, fmt.Errorf("a key of another version of skep: %w", seal.ErrFormat)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return seal.Key{}, errNoOwnKey
	}
	if source == seal.SourceKeyFile {
		return seal.KeyFile(vfs.OS{}, path)
	}
	return credential.Open(ctx, path)
}

func (o ownKey) create(ctx context.Context, source seal.Source) (seal.Key, error) {
	path, with := o.path(source), credential.TPM2
	switch source {
	case seal.SourceKeyFile:
		return seal.KeyFile(vfs.OS{}, path)
	case seal.SourceHostKey:
		with = credential.Host
	}
	key, err := credential.Create(ctx, path, with)
	if err != nil {
		err = fault.New(fault.Precondition, "make this node's own key: %w: set it up, or give another --key-provider", err)
	}
	return key, err
}

// found returns the keys that are there, for a node key of which it is not known what sealed it, and why others do not open.
func (o ownKey) found(ctx context.Context) (holders, error) {
	var h holders
	var errs []error
	for _, source := range []seal.Source{seal.SourceTPM2, seal.SourceHostKey, seal.SourceCredential} {
		if !o.has(source) {
			continue
		}
		key, err := o.of(ctx, source)
		if err == nil {
			h = append(h, key)
		}
		errs = append(errs, err)
	}
	return h, errors.Join(errs...)
}

// keepOnly removes the files of the sources that the node's data are not sealed by any more. An unlock key may be turned off again:
// then the node's own key is needed, and none is removed.
func (o ownKey) keepOnly(source seal.Source) error {
	if source == seal.SourceUnlockKey {
		return nil
	}
	var errs []error
	for _, other := range []seal.Source{seal.SourceKeyFile, seal.SourceTPM2, seal.SourceHostKey} {
		if other == source || !o.has(other) {
			continue
		}
		if err := atomicfile.Remove(o.path(other)); err != nil {
			errs = append(errs, fmt.Errorf("remove a key that is not used any more: %w", err))
		}
	}
	return errors.Join(errs...)
}

// fault says which key does not open the node's data, and the way out.
func (o ownKey) fault(source seal.Source, err error) error {
	where := source.String()
	if path := o.path(source); path != "" {
		where += " " + path
	}
	remedy, rest := "put back the file that sealed them", "leave --force` here and join again"
	switch source {
	case seal.SourceKeyFile: // the node's own key lies in clear beside it
		rest = "rejoin` here"
	case seal.SourceTPM2:
		remedy = "the TPM was cleared, or the disk is in another machine"
	case seal.SourceHostKey:
		remedy = "put back the /var/lib/systemd/credential.secret and /etc/machine-id that sealed them"
	case seal.SourceCredential:
		remedy = "make the unit load the credential that sealed them"
	}
	return fault.New(fault.Precondition, "this node's data are sealed by the %s, which does not open them: %w: %s. "+
		"If it is gone for good: where other managers have the data, run `skep swarm %s; else restore a backup",
		where, err, remedy, rest)
}

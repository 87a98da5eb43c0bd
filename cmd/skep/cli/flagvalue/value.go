package flagvalue

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
)

// defaultValueMode lets everybody in the container read a secret or config, and nobody write it.
const defaultValueMode = 0o444

// Value is a wish for one secret or config in a container. It is named, not yet looked up.
type Value struct {
	// Source is the name or id.
	Source string
	// Version is the number of the version that is wanted whatever comes after it, or 0 for the newest at any time.
	Version uint64
	// Target is the file's name below /run/secrets, or below / for a config, or an absolute path.
	Target   string
	UID, GID uint32
	// Mode holds permission bits.
	Mode uint32
	// OnChange is what becomes of the tasks when there is a new value, and Signal, which only the managers check, what they are sent then.
	OnChange api.OnChange
	Signal   string
}

// Secrets collects secrets, each written NAME[@VERSION] or source=NAME[@VERSION],target=FILE,uid=N,gid=N,mode=OCTAL and
// on-change=restart|signal:NAME|none.
type Secrets []Value

// Set adds one secret.
func (s *Secrets) Set(text string) error {
	secret, err := parseValue(s.Type(), text)
	if err != nil {
		return err
	}
	*s = append(*s, secret)
	return nil
}

// String is empty: the default is no secret.
func (s *Secrets) String() string { return "" }

// Type is Docker's word.
func (s *Secrets) Type() string { return "secret" }

// Configs collects configs, each written as a secret is.
type Configs []Value

// Set adds one config.
func (c *Configs) Set(text string) error {
	config, err := parseValue(c.Type(), text)
	if err != nil {
		return err
	}
	*c = append(*c, config)
	return nil
}

// String is empty: the default is no config.
func (c *Configs) String() string { return "" }

// Type is Docker's word.
func (c *Configs) Type() string { return "config" }

func parseValue(kind, text string) (Value, error) {
	pairs, err := fields(text)
	if err != nil {
		return Value{}, err
	}
	value := Value{Mode: defaultValueMode}
	if len(pairs) == 1 && !pairs[0].hasValue {
		// The short form keeps its case: fields lower-cases keys only.
		if err := value.setSource(strings.TrimSpace(text)); err != nil {
			return Value{}, err
		}
		value.Target = value.Source
		return value, nil
	}
	for _, pair := range pairs {
		if !pair.hasValue {
			return Value{}, fmt.Errorf("invalid field '%s' must be a key=value pair", pair)
		}
		if err := value.set(kind, pair); err != nil {
			return Value{}, err
		}
	}
	if value.Source == "" {
		return Value{}, fmt.Errorf("source is required")
	}
	if value.Version > 0 && value.OnChange != api.OnChange_ON_CHANGE_UNSPECIFIED {
		return Value{}, fmt.Errorf("source=%s@%d never changes: leave out the version, or on-change", value.Source, value.Version)
	}
	if value.Target == "" {
		value.Target = value.Source
	}
	return value, nil
}

// setSource reads NAME or NAME@VERSION.
func (v *Value) setSource(text string) error {
	name, version, pinned := strings.Cut(text, "@")
	if name == "" {
		return fmt.Errorf("source is required")
	}
	v.Source = name
	if !pinned {
		return nil
	}
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil || n == 0 {
		return fmt.Errorf("invalid version %q of %s: write the number of a version, as in %s@2", version, name, name)
	}
	v.Version = n
	return nil
}

func (v *Value) set(kind string, pair field) error {
	var err error
	switch pair.key {
	case "source", "src":
		err = v.setSource(pair.value)
	case "target":
		v.Target = pair.value
	case "uid":
		v.UID, err = parseID("uid", pair.value)
	case "gid":
		v.GID, err = parseID("gid", pair.value)
	case "mode":
		v.Mode, err = parseMode(pair.value)
	case "on-change":
		err = v.setOnChange(pair.value)
	default:
		return fmt.Errorf("invalid field in %s request: %s", kind, pair.key)
	}
	return err
}

// setOnChange reads restart, signal:NAME or none.
func (v *Value) setOnChange(text string) error {
	word, signal, _ := strings.Cut(text, ":")
	switch {
	case text == "restart":
		v.OnChange, v.Signal = api.OnChange_ON_CHANGE_UNSPECIFIED, ""
	case text == "none":
		v.OnChange, v.Signal = api.OnChange_ON_CHANGE_NONE, ""
	case word == "signal" && signal != "":
		v.OnChange, v.Signal = api.OnChange_ON_CHANGE_SIGNAL, signal
	default:
		return fmt.Errorf("invalid on-change specified: %q: write restart, signal:NAME as in signal:HUP, or none", text)
	}
	return nil
}

func parseID(key, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("invalid %s specified: %q: write a number", key, text)
	}
	return uint32(n), nil
}

// parseMode reads permission bits in octal.
func parseMode(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("invalid mode specified: %q: write octal permission bits such as 0400", text)
	}
	return uint32(n), nil
}

package flagvalue

import (
	"errors"
	"fmt"
)

// ExternalCA is a signing service outside of the swarm, written protocol=cfssl,url=https://HOST:PORT,cacert=FILE.
type ExternalCA struct {
	// URL of the server, and the name of a file with its root certificate, or "".
	URL, CACert string
	text        string
}

// Set reads the value.
func (e *ExternalCA) Set(text string) error {
	pairs, err := fields(text)
	if err != nil {
		return err
	}
	read, protocol := ExternalCA{text: text}, ""
	for _, pair := range pairs {
		if !pair.hasValue {
			return fmt.Errorf("invalid field '%s' must be a key=value pair", pair)
		}
		switch pair.key {
		case "protocol":
			protocol = pair.value
		case "url":
			read.URL = pair.value
		case "cacert":
			read.CACert = pair.value
		default:
			return fmt.Errorf("unknown option %q: protocol, url and cacert are known", pair.key)
		}
	}
	switch {
	case protocol == "":
		return errors.New("the external-ca option needs a protocol= parameter")
	case protocol != "cfssl":
		return fmt.Errorf("unrecognized external CA protocol %s: cfssl is known", protocol)
	case read.URL == "":
		return errors.New("the external-ca option needs a url= parameter")
	}
	*e = read
	return nil
}

// String returns the value as it was written.
func (e *ExternalCA) String() string { return e.text }

// Type is Docker's word.
func (e *ExternalCA) Type() string { return "external-ca" }

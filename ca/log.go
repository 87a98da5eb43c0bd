package ca

import (
	"log/slog"

	cflog "github.com/cloudflare/cfssl/log"
)

// LogTo sends what the certificate library logs to l, instead of to standard error as it does by itself. A program calls it
// once, before it uses this package: the library has one logger for the process. What the library finds worth telling is
// debugging to us, because its errors are returned, too.
func LogTo(l *slog.Logger) { cflog.SetLogger(libraryLog{l}) }

// libraryLog is a logger as the library wants it: with the methods of a syslog writer.
type libraryLog struct{ to *slog.Logger }

func (l libraryLog) debug(text string) { l.to.Debug("certificate library", "text", text) }

func (l libraryLog) Debug(text string)   { l.debug(text) }
func (l libraryLog) Info(text string)    { l.debug(text) }
func (l libraryLog) Warning(text string) { l.debug(text) }
func (l libraryLog) Err(text string)     { l.debug(text) }
func (l libraryLog) Crit(text string)    { l.debug(text) }
func (l libraryLog) Emerg(text string)   { l.debug(text) }

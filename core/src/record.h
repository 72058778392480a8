/* record.h: records, plans and hooks as bytes. Knows no store. */
#ifndef CF_RECORD_H
#define CF_RECORD_H

#include "util.h"

int cf_plan_write(const cf_platform *platform, const cf_plan *plan, cf_buffer *out); /* appends; CF_OK or CF_ENOMEM */
int cf_hook_write(const cf_platform *platform, const cf_hook *hook, cf_buffer *out);
/* Appends. CF_OK or CF_ENOMEM. */
int cf_record_append(const cf_platform *platform, cf_buffer *out, const cf_record *record);
bool cf_field_equal(const cf_field *a, const cf_field *b);
bool cf_field_is_text(int kind, int field); /* of a field that there is */
bool cf_field_nullable(int kind, int field);
/* Whether a record says what a method needs, and nothing but that and what it may (bits of fields). NULL, or what is wrong: a sentence in `text`. */
enum { CF_RECORD_FAULT = 96 };
const char *cf_record_fault(const cf_record *record, unsigned needs, unsigned may, char text[CF_RECORD_FAULT]);
/* A record that an update becomes: what `changes` says replaces what is there. */
void cf_record_apply(cf_record *record, const cf_record *changes);

#endif

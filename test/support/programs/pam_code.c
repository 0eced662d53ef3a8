/*
 * A PAM module that asks for one more thing, as those for one-time codes do: pam_code.so code=123456 [echo] [prompt=...].
 * PAM's headers are in a package of their own; what is used of them is written out here, by pam(3).
 */
#include <stdlib.h>
#include <string.h>

enum { PAM_SUCCESS = 0, PAM_SERVICE_ERR = 3, PAM_AUTH_ERR = 7, PAM_CONV = 5, PROMPT_ECHO_OFF = 1, PROMPT_ECHO_ON = 2 };

struct pam_message {
  int style;
  const char *text;
};
struct pam_response {
  char *answer;
  int unused;
};
struct pam_conv {
  int (*converse)(int, const struct pam_message **, struct pam_response **, void *);
  void *data;
};
int pam_get_item(const void *handle, int which, const void **item);

int pam_sm_authenticate(void *handle, int flags, int count, const char **arguments) {
  const char *code = NULL;
  struct pam_message message = {PROMPT_ECHO_OFF, "One-time code: "};
  for (int at = 0; at < count; at++) {
    if (strncmp(arguments[at], "code=", 5) == 0) code = arguments[at] + 5;
    if (strncmp(arguments[at], "prompt=", 7) == 0) message.text = arguments[at] + 7;
    if (strcmp(arguments[at], "echo") == 0) message.style = PROMPT_ECHO_ON;
  }
  const void *item = NULL;
  if (code == NULL || pam_get_item(handle, PAM_CONV, &item) != PAM_SUCCESS || item == NULL) return PAM_SERVICE_ERR;
  const struct pam_conv *conversation = item;
  const struct pam_message *messages[] = {&message};
  struct pam_response *response = NULL;
  int result = conversation->converse(1, messages, &response, conversation->data);
  if (result != PAM_SUCCESS || response == NULL) return PAM_AUTH_ERR;
  result = response->answer != NULL && strcmp(response->answer, code) == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
  free(response->answer);
  free(response);
  return result;
}

int pam_sm_setcred(void *handle, int flags, int count, const char **arguments) {
  return PAM_SUCCESS;
}

// A link to /login#TOKEN logs in by itself. What stands behind the # is not sent to anybody; here it is taken out of the address first.
const token = decodeURIComponent(location.hash.slice(1));
if (token) {
  history.replaceState(null, "", "/login");
  document.getElementById("token").value = token;
  document.querySelector("form").requestSubmit();
}
